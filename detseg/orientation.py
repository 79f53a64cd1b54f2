"""Apply and undo the EXIF orientation of images, boxes, points and masks.

The eight orientations are those of the Exif 2.3 tag 0x0112. Coordinates are continuous: a pixel at column x covers
[x, x + 1), so a horizontal flip maps a point x to W - x and an integer box onto exactly the same pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from detseg.errors import DataError
from detseg.masks import mask_to_rle, rle_to_mask
from detseg.structures import RLE

Float64 = npt.NDArray[np.float64]

# orientation -> (first transpose, then flip left-right, then flip top-bottom)
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


def exif_orientation(image: Image.Image) -> int:
    """Orientation 1..8 of a PIL image, before its pixels are loaded: 1 if it has none or a corrupt one, and for TIFF,
    which Pillow rotates itself, size and pixels."""
    try:
        # The base class's method: PngImageFile's would decode the pixels to search for EXIF behind them.
        orientation = int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:  # corrupt EXIF raises many types; the image itself may be fine
        return 1
    return orientation if 1 <= orientation <= 8 and image.format != "TIFF" else 1


def upright_hw(stored_hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Height and width of the upright image: swapped for orientations 5 to 8."""
    height, width = stored_hw
    return (width, height) if _steps(orientation)[0] else (height, width)


def orient_image(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Stored pixels [H, W, ...] -> upright pixels, contiguous (the same array if nothing changes)."""
    transpose, flip_x, flip_y = _steps(orientation)
    if transpose:
        array = array.swapaxes(0, 1)
    if flip_x:
        array = array[:, ::-1]
    if flip_y:
        array = array[::-1]
    return np.ascontiguousarray(array)


def orient_boxes(boxes_xywh: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [N, 4] x, y, width, height in stored pixels -> upright pixels. Widths and heights stay exact."""
    boxes = np.array(boxes_xywh, np.float64).reshape(-1, 4)
    transpose, flip_x, flip_y = _steps(orientation)
    height, width = upright_hw(stored_hw, orientation)
    if transpose:
        boxes = boxes[:, [1, 0, 3, 2]]
    if flip_x:
        boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    if flip_y:
        boxes[:, 1] = height - boxes[:, 1] - boxes[:, 3]
    return boxes


def orient_points(xy: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [..., 2] x, y in stored pixels -> upright pixels."""
    points = np.array(xy, np.float64)
    transpose, flip_x, flip_y = _steps(orientation)
    height, width = upright_hw(stored_hw, orientation)
    if transpose:
        points = points[..., ::-1].copy()
    if flip_x:
        points[..., 0] = width - points[..., 0]
    if flip_y:
        points[..., 1] = height - points[..., 1]
    return points


def orient_rle(rle: RLE, orientation: int) -> RLE:
    """RLE of the stored image -> RLE of the upright image."""
    return rle if orientation == 1 else mask_to_rle(orient_image(rle_to_mask(rle), orientation))


def unorient_boxes(boxes_xywh: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [N, 4] in upright pixels -> stored pixels; ``stored_hw`` is the size of the stored image."""
    return orient_boxes(boxes_xywh, upright_hw(stored_hw, orientation), _inverse(orientation))


def unorient_points(xy: Float64, stored_hw: tuple[int, int], orientation: int) -> Float64:
    """float64 [..., 2] in upright pixels -> stored pixels; ``stored_hw`` is the size of the stored image."""
    return orient_points(xy, upright_hw(stored_hw, orientation), _inverse(orientation))


def unorient_rle(rle: RLE, orientation: int) -> RLE:
    """RLE of the upright image -> RLE of the stored image."""
    return orient_rle(rle, _inverse(orientation))


def _steps(orientation: int) -> tuple[bool, bool, bool]:
    if orientation not in _STEPS:
        raise DataError(f"EXIF orientation {orientation} is not one of 1..8")
    return _STEPS[orientation]


def _inverse(orientation: int) -> int:
    """The inverse orientation: the two rotations by 90 degrees are inverse to each other, all others to themselves."""
    return {6: 8, 8: 6}.get(orientation, orientation)
