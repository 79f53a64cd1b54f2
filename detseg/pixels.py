"""Convert images in memory (PIL images, arrays, tensors) to uint8 RGB pixels, as their files are decoded. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.array_images import ArrayImage
from detseg.errors import DataError
from detseg.orientation import exif_orientation
from detseg.pixel_values import CONVERT, FULL_16_BITS, Range, decode, load, read_values, to_8_bits

UInt8 = npt.NDArray[np.uint8]

_GIVE_RANGE = "give the range of the values: --value-range [LOW,HIGH], or value_range=(LOW, HIGH) in Python"
_NEED_RANGE = "other values need a model with a value range (train with --value-range)"
_USE = "use a PIL image, an array uint8 [H, W, 3], or a tensor [3, H, W]"


def to_pixels(image: Any, where: str, value_range: Range | None = None) -> tuple[UInt8, int]:
    """Pixels uint8 [H, W, 3] RGB as they are stored, and their EXIF orientation 1..8 (1 unless it is a PIL image).

    Args:
        image: a PIL image, converted as the same file would be; an array [H, W, 3], [H, W] or [H, W, 1]; or a tensor
            [3, H, W] or [1, H, W] on any device. Arrays and tensors are uint8, or float in [0, 1], which is scaled to
            0..255 and rounded. They must not be normalised: the models do that.
        where: name of the image in messages.
        value_range: the model's: lowest and highest value of images that are not uint8 (integers, floats, PIL images of
            more than 8 bits), which become 0 and 255. It then decides for floats in [0, 1], too. None: the high byte of
            16-bit PIL images.

    Raises:
        DataError: another type, shape or dtype; values outside [0, 1]; an image that cannot be decoded or whose mode
            has no defined range; with ``value_range``, a PIL image whose values Pillow has reduced or rescaled.
    """
    if isinstance(image, Image.Image):
        return _from_pillow(image, where, value_range)
    if not hasattr(image, "is_floating_point"):  # no tensor
        if not isinstance(image, np.ndarray):
            raise DataError(f"{where}: the image is a {type(image).__name__}; {_USE}")
        kind, array, shape = "array", image, list(image.shape)
    else:
        tensor = image.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor  # numpy has no bfloat16
        kind, array, shape = "tensor", tensor.numpy(), list(tensor.shape)
        if array.ndim == 3:
            array = array.transpose(1, 2, 0)
    if array.ndim == 2 and kind == "array":
        array = array[..., None]
    dtype = image.dtype
    if array.ndim != 3 or array.shape[2] not in (1, 3) or not array.size:
        raise DataError(f"{where}: the image is a {kind} of {dtype} {shape}; {_remedy(kind, shape)}")
    if value_range is not None and array.dtype != np.uint8 and array.dtype.kind in "iuf":
        array = to_8_bits(array, value_range, where)
    elif np.issubdtype(array.dtype, np.floating):
        array = _from_floats(array, where)
    if array.dtype != np.uint8:
        raise DataError(
            f"{where}: the image is a {kind} of {dtype} {shape}; convert it to uint8 (0..255) or to floats in [0, 1]; "
            f"{_NEED_RANGE}"
        )
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3))), 1


def pillow_rgb(image: Image.Image, name: str) -> UInt8:
    """Pixels uint8 [H, W, 3] RGB of an open PIL image as stored: grey is repeated, CMYK is converted, alpha is dropped,
    16 bits are reduced to their high byte. Its ``info`` may lose an entry.

    Raises:
        DataError: it is corrupt, or has a colour mode or values without a defined range (floating point, LAB).
    """
    if isinstance(image, ArrayImage):
        return image.rgb()
    decode(image, name)
    if image.mode == "F":
        file = f" in a {image.format} file" if image.format else ""
        raise DataError(f"{name}: floating-point values{file} cannot be converted to 8 bits; {_GIVE_RANGE}")
    if image.mode.startswith("I"):  # I;16 and its byte orders, or 32-bit integers with 16-bit values
        values = load(image, name)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"{name}: values {values.min()}..{values.max()} do not fit 16 bits; {_GIVE_RANGE}")
        return _repeated((values.astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode not in ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        file = f" in a {image.format} file" if image.format else ""
        raise DataError(
            f"{name}: colour mode {image.mode}{file} cannot be converted to 8 bits; {CONVERT}, or to mode RGB or L"
        )
    image.info.pop("transparency", None)  # of a palette: Pillow would warn about dropping it
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)  # drops alpha, never blends


def _from_pillow(image: Image.Image, where: str, value_range: Range | None) -> tuple[UInt8, int]:
    """Pixels as stored, and the orientation. The image is not changed."""
    if value_range is not None and _has_lost_values(image, value_range):
        raise DataError(
            f"{where}: Pillow does not keep the values of a {image.format} file of mode {image.mode} with more than 8 "
            "bits, which the model's value range is for; pass the path or the bytes of the file"
        )
    load(image, where)  # first: a TIFF is rotated while it is loaded
    if value_range is not None and (image.mode == "F" or image.mode.startswith("I")):
        stored = image.copy() if image.format == "PPM" else image  # without the format: the values are those of Pillow
        pixels = _repeated(to_8_bits(read_values(stored, b"", where), value_range, where))
    else:
        pixels = pillow_rgb(image.copy(), where)
    return pixels, exif_orientation(image)


def _has_lost_values(image: Image.Image, value_range: Range) -> bool:
    """Whether Pillow rescales a PPM, or reduces 16-bit colours to their high bytes, which only the range of all 16 bits
    does too. It is known until the image is loaded."""
    for codec, _, _, arguments in getattr(image, "tile", ()):
        top = arguments[1] if codec in ("ppm", "ppm_plain") else 0
        if 255 < top < FULL_16_BITS[1]:
            return True  # rescaled
        if not image.mode.startswith("I") and (top > 255 or ";16" in str(arguments)):
            return value_range != FULL_16_BITS
    return False


def _repeated(grey: UInt8) -> UInt8:
    return np.repeat(grey[..., None], 3, axis=2)


def _from_floats(array: npt.NDArray[Any], where: str) -> UInt8:
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 1):  # so that NaN fails too
        raise DataError(
            f"{where}: values from {lowest:.4g} to {highest:.4g}; floats must be in [0, 1]: divide 0..255 by 255, and "
            f"remove Normalize from the transforms, the model normalises; {_NEED_RANGE}"
        )
    return np.rint(array * 255).astype(np.uint8)


def _remedy(kind: str, shape: list[int]) -> str:
    """What to do about a shape that is not accepted."""
    if 0 in shape:
        return "it has no pixels"
    if len(shape) == 4:
        return "pass the images of a batch one by one, or as a list"
    if kind == "tensor" and len(shape) == 3 and shape[2] in (1, 3):
        return "tensors are [3, H, W]: use image.permute(2, 0, 1)"
    if kind == "array" and len(shape) == 3 and shape[0] in (1, 3):
        return "arrays are [H, W, 3]: use image.transpose(1, 2, 0)"
    if len(shape) == 3 and 4 in (shape[0], shape[2]):
        return "remove the alpha channel, and pass colours in the order red, green, blue"
    return _USE
