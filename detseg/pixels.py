"""Convert images in memory (PIL images, arrays, tensors) to the RGB pixels that files are decoded to. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.errors import DataError
from detseg.images import pillow_pixels

UInt8 = npt.NDArray[np.uint8]

_USE = "use a PIL image, an array uint8 [H, W, 3], or a tensor [3, H, W]"


def to_pixels(image: Any, where: str) -> tuple[UInt8, int]:
    """Pixels uint8 [H, W, 3] RGB as they are stored, and their EXIF orientation 1..8 (1 unless it is a PIL image).

    Args:
        image: a PIL image, converted as the same file would be; an array [H, W, 3], [H, W] or [H, W, 1]; or a tensor
            [3, H, W] or [1, H, W] on any device. Arrays and tensors are uint8, or float in [0, 1], which is scaled to
            0..255 and rounded. They must not be normalised: the models do that.
        where: name of the image in messages.

    Raises:
        DataError: another type, shape or dtype; values outside [0, 1]; an image that cannot be decoded or whose mode
            has no defined range.
    """
    if isinstance(image, Image.Image):
        return pillow_pixels(image, where)
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
    if np.issubdtype(array.dtype, np.floating):
        array = _from_floats(array, where)
    if array.dtype != np.uint8:
        raise DataError(
            f"{where}: the image is a {kind} of {dtype} {shape}; convert it to uint8 (0..255) or to floats in [0, 1]"
        )
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3))), 1


def _from_floats(array: npt.NDArray[Any], where: str) -> UInt8:
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 1):  # so that NaN fails too
        raise DataError(
            f"{where}: values from {lowest:.4g} to {highest:.4g}; floats must be in [0, 1]: divide 0..255 by 255, and "
            "remove Normalize from the transforms, the model normalises"
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
