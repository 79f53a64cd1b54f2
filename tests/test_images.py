"""Decoding of image files: every unusual file returns an image or raises one clear error."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from detseg import images
from detseg.errors import DataError
from detseg.images import EncodedImage, decode_image, read_header
from detseg.label_images import decode_label_png


def image(size_hw: tuple[int, int] = (48, 64), seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: bytes = b"") -> bytes:
    """A PNG built from its chunks, for bit depths and sizes that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_header_and_pixels_can_be_read_separately(tmp_path: Path) -> None:
    """Two steps return the same as one, from a path and from bytes; the name is in the message."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image((80, 120)), "JPEG", exif=exif)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    for source in (path, data):
        encoded_image = EncodedImage(source)
        assert encoded_image.header == read_header(source)
        for options in ({}, {"upright": False}, {"min_hw": (50, 35)}):
            np.testing.assert_array_equal(encoded_image.decode(**options), decode_image(source, **options))
    assert EncodedImage(data).decode(min_hw=(50, 35)).shape == (60, 40, 3)
    with pytest.raises(DataError, match=r"^here: "):
        EncodedImage(data[:300], name="here").decode()


# Valid files


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (50, 1), (48, 64)])
@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_return_the_pixels(format: str, size_hw: tuple[int, int]) -> None:
    pixels = image(size_hw)
    decoded = decode_image(encoded(pixels, format))
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert (decoded == pixels).all()


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_equal_pillow(format: str) -> None:
    data = encoded(image(), format)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode_image(data) - reference).max() <= 2


def test_file_name_does_not_determine_the_format(tmp_path: Path) -> None:
    path = tmp_path / "Zelle Ñ 細胞 1.jpg"
    path.write_bytes(encoded(image(), "PNG"))
    assert read_header(path).format == "PNG"
    assert (decode_image(path) == image()).all()


def test_missing_file_is_an_oserror(tmp_path: Path) -> None:
    for function in (read_header, decode_image, decode_label_png):
        with pytest.raises(OSError, match=r"gone\.png"):
            function(tmp_path / "gone.png")


# Colour modes


def modes() -> dict[str, tuple[bytes, np.ndarray]]:
    """Mode -> (file, expected pixels)."""
    rgb = image()
    grey = rgb[..., 0]
    alpha = np.full_like(grey, 7)
    wide = grey.astype(np.uint16) * 256 + 200
    palette = Image.fromarray(rgb).quantize(64)
    bits = Image.fromarray(grey > 128)
    repeat = np.repeat(grey[..., None], 3, axis=2)
    return {
        "grey": (encoded(grey, "PNG"), repeat),
        "grey JPEG": (encoded(np.full_like(grey, 77), "JPEG"), np.full_like(rgb, 77)),
        "1 bit": (encoded(bits, "PNG"), np.repeat((grey[..., None] > 128) * np.uint8(255), 3, axis=2)),
        "palette": (encoded(palette, "PNG"), np.asarray(palette.convert("RGB"))),
        "palette and transparency": (
            encoded(palette, "PNG", transparency=bytes(range(64))),
            np.asarray(palette.convert("RGB")),
        ),
        "grey and alpha": (encoded(np.stack([grey, alpha], axis=2), "PNG"), repeat),
        "alpha is dropped": (encoded(np.dstack([rgb, alpha]), "PNG"), rgb),
        "alpha in WEBP": (encoded(np.dstack([rgb, alpha]), "WEBP", lossless=True, exact=True), rgb),
        "16 bits are scaled": (encoded(wide, "PNG"), repeat),
        "16-bit TIFF": (encoded(wide, "TIFF"), repeat),
        "32-bit integers of 16 bits": (encoded(wide.astype(np.int32), "TIFF"), repeat),
        "CMYK": (
            encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"),
            np.full((8, 8, 3), (255, 0, 0), np.uint8),
        ),
    }


@pytest.mark.parametrize("mode", list(modes()))
def test_colour_modes(mode: str) -> None:
    data, expected = modes()[mode]
    assert (decode_image(data) == expected).all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "an HTML, XML or SVG file"),
        (encoded(image(), "GIF"), "a GIF file, which is not supported; convert it to PNG or JPEG"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\x00" * 100, "not a readable image"),
        (encoded(image()[..., 0].astype(np.float32), "TIFF"), "floating-point values in a TIFF"),
        (encoded(np.full((4, 4), -5, np.int32), "TIFF"), r"values -5\.\.-5 do not fit 16 bits"),
    ],
)
def test_unsupported_content_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^shelf/a\.png: .*{message}"):
        decode_image(data, name="shelf/a.png")


# Size limits


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 6_000), (30_001, 1), (2**31 - 1, 2**31 - 1)])
def test_large_sizes_are_rejected_before_decoding(width: int, height: int) -> None:
    bomb = png(width, height, 8, 2)
    begin = time.perf_counter()
    for function in (read_header, decode_image, decode_label_png):
        with pytest.raises(
            DataError, match=r"^bomb\.png: the image .* at most 100 million pixels .* resize or tile it"
        ):
            function(bomb, name="bomb.png")
    assert time.perf_counter() - begin < 0.5


def test_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 64)
    assert decode_image(encoded(image((48, 64)), "PNG")).shape == (48, 64, 3)
    with pytest.raises(DataError, match="65 x 48 pixels"):
        decode_image(encoded(image((48, 65)), "PNG"))


# Corrupt files


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_truncated_jpeg(options: dict[str, object]) -> None:
    thumbnail = encoded(image((24, 32)), "JPEG")  # its end marker must be ignored
    data = encoded(image((240, 320)), "JPEG", comment=thumbnail, **options)
    assert decode_image(data).shape == (240, 320, 3)
    for end in np.linspace(0, len(data) - 1, 60).astype(int):
        with pytest.raises(DataError, match=r"cut\.jpg"):
            decode_image(data[:end], name="cut.jpg")


def test_end_marker_of_a_thumbnail_is_ignored() -> None:
    """Control: checking only the last two bytes would accept the thumbnail's end, and reject data after the end."""
    thumbnail = encoded(image((24, 32)), "JPEG")
    data = encoded(image((240, 320)), "JPEG", comment=thumbnail)
    cut = data[: data.index(thumbnail) + len(thumbnail)]
    assert cut.endswith(b"\xff\xd9")
    with pytest.raises(DataError):
        decode_image(cut)
    assert (decode_image(data + b"appended by a camera") == decode_image(data)).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_truncated_files_of_other_formats(format: str) -> None:
    data = encoded(image((120, 160)), format)
    for end in np.linspace(0, len(data) - 1, 25).astype(int):
        with pytest.raises(DataError, match=r"cut\.img"):
            decode_image(data[:end], name="cut.img")


def test_corrupt_png_stream() -> None:
    data = bytearray(encoded(image(), "PNG"))
    middle = data.index(b"IDAT") + 40
    data[middle : middle + 20] = bytes(20)
    with pytest.raises(DataError, match=r"^b\.png: corrupt or truncated PNG file.*; replace it"):
        decode_image(bytes(data), name="b.png")


@pytest.mark.filterwarnings("ignore:::PIL")
def test_every_untrusted_file_returns_an_image_or_raises_one_error(shared_data: Path) -> None:
    paths = [path for path in sorted((shared_data / "pillow_images").rglob("*")) if path.is_file()]
    assert len(paths) >= 90
    errors = {}
    for path in paths:
        begin = time.perf_counter()
        try:
            assert decode_image(path, upright=False).shape == (*read_header(path).size_hw, 3)
        except DataError as error:
            errors[path] = str(error)
        with contextlib.suppress(DataError):
            assert decode_label_png(path).ndim == 2
        assert time.perf_counter() - begin < 5, path
    assert all(message.startswith(f"{path}: ") for path, message in errors.items())
    assert len(paths) - len(errors) >= 50


# EXIF


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_undone(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(image((40, 64)))
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    data = encoded(stored, format, exif=exif, **options)
    assert read_header(data) == images.ImageHeader((40, 64), orientation, format)
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)  # Pillow's transpose methods
    upright = np.asarray(stored if method is None else stored.transpose(Image.Transpose(method))).astype(int)
    assert np.abs(decode_image(data) - upright).max() <= (6 if format == "JPEG" else 0)
    assert decode_image(data, upright=False).shape == (40, 64, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_is_decoded_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image((40, 64)), "TIFF", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert read_header(data) == images.ImageHeader(upright.shape[:2], 1, "TIFF")
    assert (decode_image(data) == upright).all()
    assert (decode_image(data, upright=False) == upright).all()


@pytest.mark.parametrize("value", [0, 9, 77])
def test_invalid_orientation_is_ignored(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert read_header(encoded(image(), "JPEG", exif=exif)).orientation == 1


def test_exif_files_decode_to_the_same_upright_image(shared_data: Path) -> None:
    paths = sorted((shared_data / "exif_orientation").glob("*.jpg"))
    assert len(paths) == 5

    def small(upright: bool) -> list[np.ndarray]:
        return [cv2.resize(decode_image(path, upright=upright), (60, 40)).astype(int) for path in paths]

    first, *others = small(upright=True)
    assert all(np.abs(other - first).mean() < 12 for other in others)
    first, *others = small(upright=False)  # control: the stored pixels differ
    assert max(np.abs(other - first).mean() for other in others) > 30
    assert len({decode_image(path, upright=False).shape for path in paths}) > 1


# Reduced decoding


@pytest.mark.parametrize(
    ("size_hw", "min_hw", "shape"),
    [
        ((1, 1), (1, 1), (1, 1)),
        ((200, 304), (1, 1), (25, 38)),
        ((200, 304), (25, 38), (25, 38)),
        ((200, 304), (26, 38), (50, 76)),
        ((200, 304), (50, 77), (100, 152)),
        ((200, 304), (101, 1), (200, 304)),
        ((200, 304), (500, 500), (200, 304)),
        ((198, 303), (1, 1), (25, 38)),  # a quarter of the last reduced pixel is missing
        ((197, 304), (1, 1), (197, 304)),  # more is missing: the image would shift
        ((196, 303), (1, 1), (49, 76)),
        ((202, 302), (1, 1), (101, 151)),
    ],
)
def test_jpeg_is_reduced_as_far_as_allowed(
    size_hw: tuple[int, int], min_hw: tuple[int, int], shape: tuple[int, int]
) -> None:
    pixels = image(size_hw)
    reduced = decode_image(encoded(pixels, "JPEG", quality=95), min_hw=min_hw)
    assert reduced.shape == (*shape, 3)
    expected = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(reduced - expected).mean() < 6  # and the channels are still RGB
    assert decode_image(encoded(pixels, "PNG"), min_hw=min_hw).shape == (*size_hw, 3)


def test_reduced_decoding_uses_upright_sides() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image((100, 400)), "JPEG", exif=exif)
    assert decode_image(data, min_hw=(200, 50)).shape == (200, 50, 3)
    assert decode_image(data, min_hw=(50, 90)).shape == (400, 100, 3)
    assert decode_image(data, min_hw=(50, 200), upright=False).shape == (50, 200, 3)


# Label images


@pytest.mark.parametrize(
    ("data", "values", "dtype"),
    [
        (encoded(np.zeros((1, 1), np.uint8), "PNG"), [[0]], np.uint8),
        (encoded(np.array([[0, 1, 255]], np.uint8), "PNG"), [[0, 1, 255]], np.uint8),
        (encoded(np.array([[0, 1, 300, 65535]], np.uint16), "PNG"), [[0, 1, 300, 65535]], np.uint16),
        (encoded(Image.fromarray(np.array([[False, True]])), "PNG"), [[0, 1]], np.uint8),
        (png(4, 1, 2, 0, b"\x00\x1b"), [[0, 1, 2, 3]], np.uint8),
        (png(2, 1, 4, 0, b"\x00\x1f"), [[1, 15]], np.uint8),
        (png(8, 1, 1, 0, b"\x00\xa0"), [[1, 0, 1, 0, 0, 0, 0, 0]], np.uint8),
        (encoded(np.full((1, 2, 3), 9, np.uint8), "PNG"), [[9, 9]], np.uint8),
        (encoded(np.array([[[3, 255], [4, 0]]], np.uint8), "PNG"), [[3, 4]], np.uint8),
        (encoded(np.array([[70000, 2]], np.int32), "TIFF"), [[70000, 2]], np.int32),
    ],
)
def test_label_values_are_unchanged(data: bytes, values: list[list[int]], dtype: type) -> None:
    labels = decode_label_png(data)
    assert labels.tolist() == values
    assert labels.dtype == dtype


def test_palette_labels_are_indices() -> None:
    labels = Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).convert("P")
    labels.putpalette([0, 0, 0, 255, 0, 0, 255, 0, 0] + [9] * 759)  # classes 1 and 2 in one colour
    data = encoded(labels, "PNG", optimize=False)
    assert decode_label_png(data).tolist() == [[0, 1, 2, 255]]
    assert len(np.unique(decode_image(data).reshape(-1, 3), axis=0)) == 3  # control: colours lose a class


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(image(), "JPEG"), "a JPEG cannot store labels"),
        (encoded(image(), "PNG"), "has colours"),
        (png(1, 1, 16, 2, bytes(7)), "a 16-bit label image must be grey"),
        (encoded(np.zeros((2, 2), np.float32), "TIFF"), "must have one number per pixel"),
    ],
)
def test_unsupported_labels_are_an_error(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=rf"^m\.png: .*{message}"):
        decode_label_png(data, name="m.png")


def test_oxford_pet_masks(shared_data: Path) -> None:
    paths = sorted(path for path in (shared_data / "oxford_pet_26").rglob("*.png"))
    assert paths
    for path in paths:
        values = decode_label_png(path)
        assert set(np.unique(values)) <= {0, 1, 2, 255}
        assert (values == np.asarray(Image.open(path))).all()
