"""Pixel values of image files with more than 8 bits per channel, and their conversion to 8 bits by a value range.

The number of bits of a file is not the range of its values: a camera of 12 bits writes 0..4095 into 16-bit files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from detseg.array_images import ArrayImage
from detseg.errors import DataError
from detseg.image_container import REPLACE, pnm_numbers
from detseg.runtime.native_lines import with_native_lines

Range = tuple[float, float]
"""Lowest and highest value; they become 0 and 255."""

FULL_16_BITS: Range = (0.0, 65535.0)
FEW_LEVELS = 64
"""Grey levels of 256 below which a 16-bit image is reported if no value range is known."""
MOST_OUTSIDE = 0.5
"""Share of pixels outside the value range above which an image is reported."""
CONVERT = "convert it to PNG or JPEG"

_ROWS = 256  # scaled at once
_PNG_BITS = 24  # offset in a PNG file of the number of bits per channel
_BITS, _LOWEST, _HIGHEST, _SAMPLE_FORMAT = 258, (340, 280), (341, 281), 339  # TIFF tags; SMin/SMax before Min/Max


def checked_range(value: Sequence[float] | None, name: str = "value range") -> Range | None:
    """``value`` as two floats; None if it is None.

    Raises:
        DataError: not two finite numbers, or the first one is not below the second one.
    """
    if value is None:
        return None
    numbers = [float(number) for number in value]
    if len(numbers) != 2 or not np.isfinite(numbers).all() or not numbers[0] < numbers[1]:
        raise DataError(
            f"{name} {list(value)}: give the lowest and the highest pixel value, the lowest first, such as [0,4095]"
        )
    return numbers[0], numbers[1]


def load(image: Image.Image, name: str) -> npt.NDArray[np.generic]:
    """The pixels of an opened image, as Pillow decodes them. DataError if the file is corrupt or truncated."""
    decode(image, name)
    return np.asarray(image)


def decode(image: Image.Image, name: str) -> None:
    """Decode an opened image in place, without the copy of :func:`load`, which has the same errors."""
    try:
        with_native_lines(image.load)  # libtiff writes lines without a file name; what stops it is an exception, too
    except Exception as error:  # Pillow's decoders raise many types on untrusted bytes
        raise DataError(f"{name}: corrupt or truncated {image.format} file ({error}); {REPLACE}") from error


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether a file has more than 8 bits per channel: integers of 10 to 32 bits, or floating-point values."""
    if isinstance(image, ArrayImage):
        return image.is_deep
    if image.mode == "F" or image.mode.startswith("I"):
        return True
    if image.mode not in ("RGB", "RGBA", "LA"):
        return False
    if image.format == "PNG":
        return data[_PNG_BITS] == 16
    if image.format == "PPM":
        return (_pnm_maximum(data) or 0) > 255
    return image.format == "TIFF" and max(_tag(image, _BITS), default=8) > 8


def unsupported_tiff(file: BinaryIO) -> str:
    """What the pixels of a TIFF are that Pillow cannot open, with the remedy; empty if it is not a TIFF."""
    file.seek(0)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, form = tags[_BITS], tags.get(_SAMPLE_FORMAT, (1,))
        channels = tags.get(277, len(bits))
    except Exception:  # not a TIFF, or a corrupt one: Pillow's parser raises many types on untrusted bytes
        return ""
    names = {1: "unsigned", 2: "signed", 3: "floating-point"}
    return (
        f"a TIFF of {channels} x {bits[0]} bits ({names.get(form[0], 'other')}) cannot be read; save one channel of 8 "
        "or 16 bits, int32 or float32, or three of 8 or 16 bits"
    )


def kind(values: npt.NDArray[Any]) -> str:
    """Name of the type of ``read_values``, such as "16-bit" or "float32"."""
    if np.issubdtype(values.dtype, np.floating):
        return str(values.dtype)
    return f"{8 * values.dtype.itemsize}-bit"


def read_values(image: Image.Image, data: bytes, name: str) -> npt.NDArray[Any]:
    """Decode a file of more than 8 bits per channel without conversion.

    Returns:
        [H, W] grey or [H, W, 3] RGB: uint16, int32, uint32 or float32; of an array, its own type. Alpha is dropped.

    Raises:
        DataError: corrupt or truncated.
    """
    if isinstance(image, ArrayImage):
        return image.values()
    if image.mode == "F" or (image.mode.startswith("I") and image.format != "PPM"):
        values = load(image, name)
        if values.dtype == np.int32 and _is_unsigned(image):
            return values.view(np.uint32)
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    # Pillow has no mode for colours of 16 bits and returns their high bytes; it rescales the values of PPM.
    if data[:2] in (b"P2", b"P3"):
        data += b"\n"  # OpenCV needs a separator after the last number
    try:
        decoded, _ = with_native_lines(lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    except cv2.error as error:
        raise DataError(f"{name}: corrupt {image.format} file ({error.err}); {REPLACE}") from error
    if decoded is None or decoded.shape[:2] != (image.height, image.width):
        raise DataError(f"{name}: corrupt or truncated {image.format} file; {REPLACE}")
    return decoded if decoded.ndim == 2 else np.ascontiguousarray(decoded[..., 2::-1])


def stated_range(image: Image.Image, data: bytes) -> Range | None:
    """The range that the file itself states: TIFF tags, PNG's sBIT, the maximum of a PPM. None if it states none, or
    only that of its bits."""
    if image.format == "PPM":
        maximum = _pnm_maximum(data)
        return None if maximum is None or maximum >= 65535 else (0.0, float(maximum))
    if image.format == "PNG":
        bits = max(_significant_bits(data), default=16)
        return (0.0, float(2**bits - 1)) if 8 <= bits < 16 else None
    if image.format != "TIFF":
        return None
    bits = int(max(_tag(image, _BITS), default=16))
    highest = next((max(values) for tag in _HIGHEST if (values := _tag(image, tag))), None)
    lowest = next((min(values) for tag in _LOWEST if (values := _tag(image, tag))), 0.0)
    if highest is None:
        return (0.0, float(2**bits - 1)) if bits < 16 else None
    if highest >= 2 ** min(bits, 32) - 1 and bits >= 16 and image.mode != "F":
        return None  # the maximum of the type, which some programs always write
    return (float(lowest), float(highest)) if lowest < highest else None


def to_8_bits(values: npt.NDArray[Any], value_range: Range, name: str = "image") -> npt.NDArray[np.uint8]:
    """Scale values linearly so that ``value_range`` becomes 0..255; values outside become 0 or 255.

    The range is divided into 256 equal steps: integers in 0..65535 become their high bytes.

    Args:
        values: integers or floating-point numbers [H, W] or [H, W, C].
        value_range: lowest and highest value, both included.
        name: the image's name in error messages.

    Returns:
        uint8 of the same shape.

    Raises:
        DataError: a value is NaN or infinite.
    """
    low, high = value_range
    if np.issubdtype(values.dtype, np.floating):
        invalid = int(values.size - np.isfinite(values).sum())
        if invalid:
            raise DataError(
                f"{name}: {invalid} of {values.size} values are NaN or infinite; replace them with a number, such as "
                "the value of the background"
            )
        return _scaled(values, low, high - low)
    # Up to 256 integers, the highest must become 255; more are divided into 256 steps.
    width = high - low + 1 if high - low >= 255 else high - low
    if values.dtype == np.uint16 and values.size > 65536:  # a table is faster
        return _scaled(np.arange(65536, dtype=np.uint16), low, width)[values]
    return _scaled(values, low, width)


def outside_share(values: npt.NDArray[Any], value_range: Range) -> float:
    """Share of the values that are outside the range, 0..1."""
    return float(((values < value_range[0]) | (values > value_range[1])).mean()) if values.size else 0.0


def _scaled(values: npt.NDArray[Any], low: float, width: float) -> npt.NDArray[np.uint8]:
    result = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):  # of a large image, float64 would be gigabytes
        steps = (values[top : top + _ROWS].astype(np.float64) - low) * 256
        steps /= width
        result[top : top + _ROWS] = np.clip(np.floor(steps, out=steps), 0, 255, out=steps)
    return result


def _tag(image: Image.Image, tag: int) -> tuple[float, ...]:
    """The numbers of a TIFF tag; empty if it is missing or is not numeric."""
    value = getattr(image, "tag_v2", {}).get(tag, ())
    try:
        numbers = tuple(float(number) for number in (value if isinstance(value, (tuple, list)) else (value,)))
    except (TypeError, ValueError, ZeroDivisionError):
        return ()
    return numbers if np.isfinite(numbers).all() else ()


def _is_unsigned(image: Image.Image) -> bool:
    """Whether the file has unsigned 32-bit integers, which Pillow returns as signed ones."""
    return image.format == "TIFF" and _tag(image, _BITS) == (32.0,) and _tag(image, _SAMPLE_FORMAT) in ((), (1.0,))


def _significant_bits(data: bytes) -> list[int]:
    """The numbers in the sBIT chunk of a PNG, which is before the pixels; empty without one."""
    start = data.find(b"sBIT", 0, max(data.find(b"IDAT"), 0))
    return [] if start < 0 else list(data[start + 4 : start + 4 + min(data[start - 1], 4)])


def _pnm_maximum(data: bytes) -> int | None:
    """The maximum in the header of a PGM or PPM; None for other kinds."""
    numbers = pnm_numbers(io.BytesIO(data)) if data[:2] in (b"P2", b"P3", b"P5", b"P6") else []
    return numbers[2] if len(numbers) == 3 else None
