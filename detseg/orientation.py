"""EXIF orientation: from the pixels as stored to the upright image and back.

The eight orientations are those of the Exif 2.3 tag 0x0112. Coordinates are continuous: a pixel at column x covers
[x, x + 1), so a mirror maps a point x to W - x and a box of integers onto exactly the same pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.masks import mask_to_rle, rle_to_mask
from detseg.structures import RLE

Float64 = npt.NDArray[np.float64]

# orientation -> (rows and columns change places first, then mirror left-right, then mirror top-bottom)
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def upright_hw(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width of the upright image: exchanged for orientations 5 to 8."""
    height, width = stored_hw
    return (width, height) if _steps(orientation)[0] else (height, width)


def orient_image(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels [H, W, ...] -> upright pixels, contiguous (the same array where there is nothing to do)."""
    transpose, mirror, flip = _steps(orientation)
    if transpose:
        array = array.swapaxes(0, 1)
    if mirror:
        array = array[:, ::-1]
    if flip:
        array = array[::-1]
    return np.ascontiguousarray(array)


def orient_boxes(boxes_xywh: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [N, 4] x, y, width, height in stored pixels -> upright pixels. Widths and heights stay exact."""
    boxes = np.array(boxes_xywh, np.float64).reshape(-1, 4)
    transpose, mirror, flip = _steps(orientation)
    height, width = upright_hw(stored_hw, orientation)
    if transpose:
        boxes = boxes[:, [1, 0, 3, 2]]
    if mirror:
        boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    if flip:
        boxes[:, 1] = height - boxes[:, 1] - boxes[:, 3]
    return boxes


def orient_points(xy: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [..., 2] x, y in stored pixels -> upright pixels."""
    points = np.array(xy, np.float64)
    transpose, mirror, flip = _steps(orientation)
    height, width = upright_hw(stored_hw, orientation)
    if transpose:
        points = points[..., ::-1].copy()
    if mirror:
        points[..., 0] = width - points[..., 0]
    if flip:
        points[..., 1] = height - points[..., 1]
    return points


def orient_rle(rle: RLE, orientation: int) -> RLE:
    """The RLE of stored pixels -> the RLE of the upright image."""
    return rle if orientation == 1 else mask_to_rle(orient_image(rle_to_mask(rle), orientation))


def unorient_boxes(boxes_xywh: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [N, 4] in upright pixels -> stored pixels; ``stored_hw`` is the size of the result's frame."""
    return orient_boxes(boxes_xywh, upright_hw(stored_hw, orientation), _inverse(orientation))


def unorient_points(xy: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [..., 2] in upright pixels -> stored pixels; ``stored_hw`` is the size of the result's frame."""
    return orient_points(xy, upright_hw(stored_hw, orientation), _inverse(orientation))


def unorient_rle(rle: RLE, orientation: int) -> RLE:
    """The RLE of the upright image -> the RLE of stored pixels."""
    return orient_rle(rle, _inverse(orientation))


def _steps(orientation: int) -> tuple[bool, bool, bool]:
    if orientation not in _STEPS:
        raise DataError(f"EXIF orientation {orientation} is not one of 1..8")
    return _STEPS[orientation]


def _inverse(orientation: int) -> int:
    """The orientation that undoes this one: a quarter turn is undone by the other one, all else by itself."""
    return {6: 8, 8: 6}.get(orientation, orientation)
