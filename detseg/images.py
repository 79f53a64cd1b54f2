"""Decode image files: the only decoder, for training, evaluation, prediction and serving.

The format is detected from the content, never from the file name; sizes are checked before any pixel is decoded; a
file either decodes or raises one :class:`DataError` with its name. Common 8-bit files are decoded by OpenCV (fast), the
rest by Pillow. Alpha is dropped, not blended: colours under transparent pixels are used as they are stored. Values of
more than 8 bits are scaled by a value range, see :mod:`detseg.pixel_values`.
"""

from __future__ import annotations

import io
import logging
import os
import re
import warnings
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import (  # noqa: F401  (Image.open supports a format once its plugin is imported)
    BmpImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from detseg.array_images import MAGIC, ArrayImage
from detseg.errors import DataError
from detseg.image_container import check_header, check_pixels
from detseg.media.files import open_file
from detseg.orientation import exif_orientation, orient_image
from detseg.pixel_values import (
    CONVERT,
    FEW_LEVELS,
    FULL_16_BITS,
    MOST_OUTSIDE,
    REPLACE,
    Range,
    is_deep,
    outside_share,
    read_values,
    stated_range,
    to_8_bits,
    unsupported_tiff,
)
from detseg.pixels import pillow_rgb
from detseg.runtime.native_lines import with_native_lines
from detseg.short_text import one_line

Source = str | os.PathLike[str] | bytes

ALLOWED_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "PPM", "NPY")
"""Supported formats (Pillow's names, and NPY for arrays, see :mod:`detseg.array_images`); of files with several frames
(MPO, TIFF, animations) the first one is read."""

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".npy",
)  # fmt: skip
"""File suffixes that count as images when a folder is searched, in lower case."""

MAX_PIXELS = 100_000_000
"""Largest image that is decoded: 300 MB as RGB, more than nearly every camera; larger ones are mostly bombs."""

MAX_SIDE = 30_000
"""Longest side in pixels that is decoded; OpenCV's warps work with 16-bit coordinates up to 32767."""

MAX_ANIMATED_PIXELS = 40_000_000
"""Largest animated WebP that is decoded: the decoder keeps four frames of 4 bytes per pixel."""

MAX_SHIFT = 0.25
"""Largest shift of the right or lower edge by reduced decoding, in pixels of the reduced image."""


class ImageTooLarge(DataError):
    """An image with more pixels than are decoded."""


_PARSERS = tuple(name for name in ALLOWED_FORMATS if name not in ("MPO", "NPY"))  # Pillow's JPEG parser detects MPO
_OTHER_FORMATS = (
    (re.compile(rb"GIF8"), "a GIF"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF"),
    (re.compile(rb"....ftyp(hei[cx]|mif1|hevc|msf1)", re.DOTALL), "a HEIC"),
    (re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000"),
    (re.compile(rb"\x00\x00\x01\x00"), "an icon"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"\s*<(!doctype html|html|\?xml|svg)", re.IGNORECASE), "an HTML, XML or SVG"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer"),
)
_CV2_MODES = {
    "JPEG": ("RGB", "L"),
    "MPO": ("RGB", "L"),
    "PNG": ("RGB", "RGBA", "L"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("RGB",),
}
_REDUCED = (  # adds only scale bits: grey is the absence of a colour bit, and IMREAD_COLOR_RGB is a colour bit
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)

# Decoders print what is wrong without a file name; here each error becomes an exception with one.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # not to stderr, unless the program sets up logging


@dataclass(frozen=True)
class ImageHeader:
    """What a file's header specifies, before any pixel is decoded.

    Attributes:
        size_hw: height and width of the stored pixels (before any EXIF rotation).
        orientation: EXIF orientation 1..8; 1 if it is missing or cannot be read, and for TIFF, which decoders rotate
            upright themselves.
        format: one of :data:`ALLOWED_FORMATS`.
    """

    size_hw: tuple[int, int]
    orientation: int
    format: str


def read_header(source: Source, *, name: str = "") -> ImageHeader:
    """Read size, orientation and format from a file (path) or its bytes; decodes no pixels.

    Args:
        source: path, or the content of a file.
        name: the image's name in error messages; the path by default.

    Raises:
        ImageTooLarge: larger than :data:`MAX_PIXELS` or :data:`MAX_SIDE`; a DataError.
        DataError: not an image of an allowed format.
        OSError: the file cannot be opened.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(source) as file:
        return _header(_open(file, _name(source, name)))


def decode_image(
    source: Source,
    *,
    upright: bool = True,
    min_hw: tuple[int, int] | None = None,
    value_range: Range | None = None,
    name: str = "",
) -> npt.NDArray[np.uint8]:
    """Decode an image file.

    CMYK is converted, grey is repeated, alpha is dropped.
    Corruption inside a complete stream (bytes overwritten, not missing) cannot always be detected by a JPEG decoder.

    Args:
        source: path, or the content of a file.
        upright: undo the EXIF orientation. False returns the stored pixels.
        min_hw: a JPEG may be decoded at a half, a quarter or an eighth of its size (in the DCT domain, faster) as long
            as the returned height and width are not below these, and the rounding of the size shifts no edge by more
            than :data:`MAX_SHIFT`; None decodes at full size.
        value_range: lowest and highest value of images with more than 8 bits per channel, which become 0 and 255; those
            with 8 bits do not change. None reduces 16-bit channels to their high byte.
        name: the image's name in error messages; the path by default.

    Returns:
        uint8 [H, W, 3] RGB, contiguous.

    Raises:
        DataError: not a readable image (see :func:`read_header`), truncated, corrupt, of a colour mode that is not
            supported (LAB), with values that are NaN or infinite, or without ``value_range`` with values that do not
            fit 16 bits.
        OSError: the file cannot be opened.
    """
    return EncodedImage(source, name=name).decode(upright=upright, min_hw=min_hw, value_range=value_range)


class EncodedImage:
    """An image file whose header is read but whose pixels are not yet decoded, for callers that need the header first.

    Arguments and errors are those of :func:`decode_image`.

    Attributes:
        header: the result of :func:`read_header`.
        is_deep: whether it has more than 8 bits per channel.
        name, data, image: its name in messages, its content, and the opened image, of which only the header is parsed.
        note: after :meth:`decode`: what is wrong with the value range for this image; empty if nothing is.
        damage: after :meth:`decode`: what the decoder said about damaged data that it has replaced; empty for none.
    """

    def __init__(self, source: Source, *, name: str = "") -> None:
        self.name = _name(source, name)
        self.data, self.image = _read(source, self.name)
        self.header = _header(self.image)
        self.is_deep = is_deep(self.image, self.data)
        self.note = self.damage = ""

    def decode(
        self, *, upright: bool = True, min_hw: tuple[int, int] | None = None, value_range: Range | None = None
    ) -> npt.NDArray[np.uint8]:
        """The pixels, uint8 [H, W, 3] RGB, contiguous."""
        header = self.header
        if min_hw is not None and upright and header.orientation >= 5:
            min_hw = (min_hw[1], min_hw[0])
        if self.is_deep:
            pixels = self._decode_deep(value_range)
        elif _is_cv2_decodable(self.image):
            pixels, lines = _decode_cv2(self.data, header, min_hw, self.name)
            if lines:
                self.damage = f"{self.name}: damaged {header.format} file ({one_line('; '.join(lines))}); {REPLACE}"
        else:
            pixels = pillow_rgb(self.image, self.name)
        if upright and header.orientation != 1:
            pixels = orient_image(pixels, header.orientation)
        return np.ascontiguousarray(pixels)

    def values(self) -> npt.NDArray[Any]:
        """The stored values of an image with more than 8 bits per channel; see ``pixel_values.read_values``."""
        return read_values(self.image, self.data, self.name)

    def stated_range(self) -> Range | None:
        """The range of values that the file states; see ``pixel_values.stated_range``."""
        return stated_range(self.image, self.data)

    def _decode_deep(self, value_range: Range | None) -> npt.NDArray[np.uint8]:
        is_grey = self.image.mode == "F" or self.image.mode.startswith("I")
        if value_range is None or (value_range == FULL_16_BITS and not is_grey):
            pixels = pillow_rgb(self.image, self.name)
            levels = int(pixels.max()) - int(pixels.min()) + 1
            if value_range is None and levels < FEW_LEVELS:
                self.note = (
                    f"{self.name}: more than 8 bits per channel, but without a value range it has {levels} of 256 "
                    "grey levels; train with --value-range [LOW,HIGH], or create_model(..., value_range=(LOW, HIGH))"
                )
            return pixels
        values = self.values()
        share = outside_share(values, value_range)
        if share > MOST_OUTSIDE:
            self.note = (
                f"{self.name}: {share:.0%} of its values are outside the value range {value_range[0]:g}.."
                f"{value_range[1]:g} and become 0 or 255; its values are {values.min():g}..{values.max():g}"
            )
        pixels = to_8_bits(values, value_range, self.name)
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _name(source: Source, name: str) -> str:
    return name or ("image" if isinstance(source, bytes) else str(source))


def _read(source: Source, name: str) -> tuple[bytes, Image.Image]:
    """The content of a file, and its image, of which only the header is parsed."""
    if isinstance(source, bytes):
        data, image = source, _open(io.BytesIO(source), name)
    else:
        with open_file(source) as file:
            check_header(file, name)
            data = file.read()
        image = _open(io.BytesIO(data), name)
    check_pixels(data, name)
    return data, image


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Parse the header, decode no pixels. DataError unless format and size are allowed."""
    check_header(file, name)
    is_array = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    try:
        image = ArrayImage(file, name) if is_array else Image.open(file, formats=_PARSERS)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise ImageTooLarge(
            f"{name}: the image has {pixels[0] if pixels else 'too many'} pixels; {_too_large()}"
        ) from error
    except DataError:
        raise
    except Exception as error:  # Pillow's parsers raise many types on untrusted bytes
        file.seek(0)
        head = file.read(64)
        if not head:
            raise DataError(f"{name}: the file is empty; remove it or download it again") from error
        kind = next((kind for pattern, kind in _OTHER_FORMATS if pattern.match(head)), "")
        if kind:
            raise DataError(f"{name}: this is {kind} file, which is not supported; {CONVERT}") from error
        if tiff := unsupported_tiff(file):
            raise DataError(f"{name}: {tiff}") from error
        reason = "" if isinstance(error, Image.UnidentifiedImageError) else f" ({error})"
        raise DataError(
            f"{name}: not a readable image{reason}; it must be one of {', '.join(ALLOWED_FORMATS)}"
        ) from error
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError(f"{name}: the image is {width} x {height} pixels and has no area; remove it")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ImageTooLarge(f"{name}: the image is {width} x {height} pixels; {_too_large()}")
    if image.format == "WEBP" and getattr(image, "is_animated", False) and width * height > MAX_ANIMATED_PIXELS:
        raise DataError(
            f"{name}: an animation of {width} x {height} pixels; of animated WebP, at most "
            f"{MAX_ANIMATED_PIXELS // 1_000_000} million pixels are decoded; save one frame as an image"
        )
    return image


def _too_large() -> str:
    return f"at most {MAX_PIXELS // 1_000_000} million pixels and {MAX_SIDE} per side are decoded; resize or tile it"


def _header(image: Image.Image) -> ImageHeader:
    return ImageHeader((image.height, image.width), exif_orientation(image), str(image.format))


def _is_cv2_decodable(image: Image.Image) -> bool:
    """Whether it is 8-bit colour or grey in one frame: OpenCV decodes these to the same pixels as Pillow, faster."""
    if image.mode not in _CV2_MODES.get(str(image.format), ()):
        return False
    return image.format == "MPO" or not getattr(image, "is_animated", False)


def _decode_cv2(
    data: bytes, header: ImageHeader, min_hw: tuple[int, int] | None, name: str
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Pixels uint8 [H, W, 3] RGB as stored, and the lines that the decoder writes about damaged data."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    size_hw = header.size_hw
    if min_hw is not None and header.format in ("JPEG", "MPO"):
        for divisor, flag in _REDUCED:
            reduced = -(-size_hw[0] // divisor), -(-size_hw[1] // divisor)  # libjpeg rounds up
            # Rounding up adds a part of the last pixel; the image shifts by that much at its end.
            shift = max(small - side / divisor for small, side in zip(reduced, size_hw, strict=True))
            if reduced[0] >= min_hw[0] and reduced[1] >= min_hw[1] and shift <= MAX_SHIFT:
                flags |= flag
                size_hw = reduced
                break
    try:
        pixels, lines = with_native_lines(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), flags))
    except cv2.error as error:
        raise DataError(f"{name}: corrupt {header.format} file ({error.err}); {REPLACE}") from error
    if pixels is None:
        raise DataError(f"{name}: corrupt or truncated {header.format} file; {REPLACE}")
    if pixels.shape != (*size_hw, 3):
        raise DataError(f"{name}: the header specifies {size_hw}, but the pixels are {pixels.shape[:2]}; {REPLACE}")
    return np.asarray(pixels, np.uint8), lines
