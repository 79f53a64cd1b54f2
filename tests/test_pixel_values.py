"""Values of more than 8 bits: read as they are stored, scaled by a range; 8 bits and full 16 bits do not change."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.errors import DataError
from detseg.images import EncodedImage, decode_image
from detseg.pixel_values import FULL_16_BITS, checked_range, outside_share, to_8_bits

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 4096, (30, 40)).astype(np.uint16)
RGB = RNG.integers(0, 4096, (30, 40, 3)).astype(np.uint16)


def old_rule(values: np.ndarray) -> np.ndarray:
    """The high byte of 16 bits: the rule of earlier versions, black for 12 bits."""
    return (values >> 8).astype(np.uint8)


def pillow(values: np.ndarray, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format, **options)
    return buffer.getvalue()


def opencv(values: np.ndarray, suffix: str) -> bytes:
    order = {2: slice(None), 3: (Ellipsis, [2, 1, 0]), 4: (Ellipsis, [2, 1, 0, 3])}
    channels = 2 if values.ndim == 2 else values.shape[2]
    return cv2.imencode(suffix, np.ascontiguousarray(values[order[channels]]))[1].tobytes()


def pnm(values: np.ndarray, maximum: int) -> bytes:
    kind = b"P5" if values.ndim == 2 else b"P6"
    header = b"%s\n# made by a camera\n%d %d\n%d\n" % (kind, values.shape[1], values.shape[0], maximum)
    return header + values.astype(">u2").tobytes()


def png_chunks(values: np.ndarray, colour: int, extra: tuple[bytes, bytes] | None = None) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    more = chunk(*extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


ALPHA = np.full((30, 40, 1), 9, np.uint16)
FILES = {
    "grey PNG": (pillow(GREY, "PNG"), GREY),
    "grey TIFF": (pillow(GREY, "TIFF"), GREY),
    "compressed grey TIFF": (pillow(GREY, "TIFF", compression="tiff_lzw"), GREY),
    "big-endian grey TIFF": (pillow(GREY.astype(">u2"), "TIFF"), GREY),
    "int32 TIFF": (pillow(GREY.astype(np.int32), "TIFF"), GREY),
    "float32 TIFF": (pillow(GREY.astype(np.float32), "TIFF"), GREY),
    "PGM": (pnm(GREY, 65535), GREY),
    "PGM of 12 bits": (pnm(GREY, 4095), GREY),
    "RGB PNG": (opencv(RGB, ".png"), RGB),
    "RGBA PNG": (opencv(np.dstack([RGB, ALPHA]), ".png"), RGB),
    "grey and alpha PNG": (png_chunks(np.dstack([GREY, ALPHA]), 4), np.repeat(GREY[..., None], 3, axis=2)),
    "RGB TIFF": (opencv(RGB, ".tif"), RGB),
    "RGBA TIFF": (opencv(np.dstack([RGB, ALPHA]), ".tif"), RGB),
    "PPM": (pnm(RGB, 65535), RGB),
    "PPM of 12 bits": (pnm(RGB, 4095), RGB),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_every_format_returns_its_values_and_is_scaled_by_the_range(kind: str) -> None:
    data, values = FILES[kind]
    encoded = EncodedImage(data)
    assert encoded.is_deep
    np.testing.assert_array_equal(encoded.values(), values)
    pixels = encoded.decode(value_range=(0, 4095))
    assert pixels.shape == (30, 40, 3)
    assert pixels.flags.c_contiguous
    scaled = np.floor(values / 4095 * 256).clip(0, 255) if kind.startswith("float") else values >> 4
    np.testing.assert_array_equal(pixels, scaled if values.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2))
    assert not encoded.note
    assert pixels.max() == 255
    assert old_rule(values).max() == 15, "control: the old rule makes it nearly black"


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_full_16_bits_are_bit_identical_to_the_high_byte(suffix: str, channels: int) -> None:
    values = RNG.integers(0, 65536, (300, 400, channels)).astype(np.uint16)
    data = opencv(values[..., 0] if channels == 1 else values, suffix)
    expected = np.broadcast_to(old_rule(values[..., :3]), (300, 400, 3))
    for value_range in (None, FULL_16_BITS):
        np.testing.assert_array_equal(decode_image(data, value_range=value_range), expected)
    assert (decode_image(data, value_range=(0, 60000)) != expected).any(), "control"


@pytest.mark.parametrize(
    "data",
    [
        pillow(GREY.astype(np.uint8), "PNG"),
        pillow(RGB.astype(np.uint8), "TIFF"),
        pillow(RGB.astype(np.uint8), "JPEG"),
        pillow(RGB.astype(np.uint8), "BMP"),
        pillow(RGB.astype(np.uint8), "WEBP"),
        pillow(GREY.astype(np.uint8), "PPM"),
        pillow(GREY > 2000, "PNG"),
    ],
)
def test_8_bits_are_never_scaled(data: bytes) -> None:
    assert not EncodedImage(data).is_deep
    np.testing.assert_array_equal(decode_image(data, value_range=(10, 20)), decode_image(data))


def test_signed_unsigned_and_floating_point_values() -> None:
    signed = np.array([[-40, 0, 120]], np.int32)
    assert decode_image(pillow(signed, "TIFF"), value_range=(-40, 120))[0, :, 0].tolist() == [0, 64, 255]
    floats = np.array([[-1.0, 0.0, 0.5, 1.0, 7.0]], np.float32)
    assert to_8_bits(floats, (0.0, 1.0))[0].tolist() == [0, 0, 128, 255, 255]
    assert outside_share(floats, (0.0, 1.0)) == 0.4
    large = np.array([[0, 2**32 - 1]], np.uint32)
    data = bytearray(pillow(large.view(np.int32), "TIFF"))
    position = data.index(struct.pack("<HHI", 339, 3, 1)) + 8  # SampleFormat: unsigned
    data[position : position + 2] = struct.pack("<H", 1)
    assert EncodedImage(bytes(data)).values().tolist() == large.tolist()


def test_values_that_are_not_finite_are_an_error() -> None:
    values = np.ones((4, 5), np.float32)
    values[1, 1:3] = np.nan, np.inf
    with pytest.raises(DataError, match=r"^a\.tif: 2 of 20 values are NaN or infinite; replace them"):
        decode_image(pillow(values, "TIFF"), value_range=(0, 1), name="a.tif")


@pytest.mark.parametrize("values", [np.full((4, 4), 0.5, np.float32), np.full((4, 4), -5, np.int32)])
def test_without_a_range_the_error_names_the_option(values: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"--value-range \[LOW,HIGH\]"):
        decode_image(pillow(values, "TIFF"))


def test_a_tiff_of_another_type_is_an_error_that_names_it(tmp_path: Path) -> None:
    for values in (np.ones((4, 5, 3), np.float32), np.ones((4, 5), np.float64), np.ones((4, 5, 3), np.int32)):
        path = tmp_path / "a.tif"
        cv2.imwrite(str(path), values)
        bits = 8 * values.dtype.itemsize
        with pytest.raises(
            DataError, match=rf"a\.tif: a TIFF of {values[0, 0].size} x {bits} bits \(.*save one channel"
        ):
            decode_image(path)


def test_notes_for_images_that_the_range_does_not_suit() -> None:
    for kind in ("grey PNG", "RGB PNG", "RGB TIFF", "PPM", "int32 TIFF"):
        encoded = EncodedImage(FILES[kind][0], name="a")
        encoded.decode()
        assert re.match("a: more than 8 bits .* without a value range it has 1[67] of 256 grey levels", encoded.note)
    encoded = EncodedImage(FILES["grey PNG"][0], name="a")
    encoded.decode(value_range=(60000, 65535))
    assert encoded.note.startswith("a: 100% of its values are outside the value range 60000..65535")


def test_ranges_that_the_files_state() -> None:
    def tiff(**tags: float) -> bytes:
        numbers = {"low": 280, "high": 281, "slow": 340, "shigh": 341}
        return pillow(GREY, "TIFF", tiffinfo={numbers[name]: value for name, value in tags.items()})

    assert EncodedImage(pillow(GREY, "TIFF")).stated_range() is None
    assert EncodedImage(tiff(low=10, high=4095)).stated_range() == (10, 4095)
    assert EncodedImage(tiff(high=65535)).stated_range() is None, "the maximum of the type"
    assert EncodedImage(pnm(GREY, 4095)).stated_range() == (0, 4095)
    assert EncodedImage(pnm(GREY, 65535)).stated_range() is None
    assert EncodedImage(png_chunks(GREY[..., None], 0, (b"sBIT", b"\x0c"))).stated_range() == (0, 4095)
    assert EncodedImage(png_chunks(GREY[..., None], 0)).stated_range() is None


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [2, 1], [1, 1], [float("nan"), 1]])
def test_wrong_ranges_are_an_error(value: list[float]) -> None:
    with pytest.raises(DataError, match="the lowest first, such as"):
        checked_range(value)
    assert checked_range([0, 4095]) == (0.0, 4095.0)
    assert checked_range(None) is None
