"""Find images whose coordinates fit only before, or only after, the rotation that their EXIF data states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.annotations.plausibility import BEYOND, pixels_outside
from detseg.orientation import orient_boxes, unorient_boxes, upright_hw

OF_STORED = "coordinates leave the image as it is rotated by EXIF, and fit in its stored pixels"
OF_UPRIGHT = "coordinates leave the stored pixels of the image, and fit as it is rotated by EXIF"
ROTATED = (OF_STORED, OF_UPRIGHT)
"""The notes: the annotated width and height belong to the other frame than the coordinates do."""


def rotated_coordinates(
    boxes: npt.NDArray[np.float64],
    image: npt.NDArray[np.int64],
    stored_hw: Sequence[tuple[int, int]],
    orientation: Sequence[int],
    stored_frame: Sequence[bool],
) -> dict[int, tuple[str, npt.NDArray[np.float64]]]:
    """Find the images whose boxes fit only in the other frame than the one that they were read in.

    Returns row of an image -> one of ``ROTATED``, and float64 [n, 4] its boxes upright if they are of the other frame.

    Only a rotation by 90 degrees changes which boxes fit, so that of 180 degrees, or squares, cannot be found.

    Args:
        boxes: float64 [N, 4] x, y, width, height, upright as they were read, before clipping.
        image: int64 [N] the image of each.
        stored_hw, orientation, stored_frame: of each image; see ``TableBuilder.add_image``.
    """
    turned = [row for row, number in enumerate(orientation) if number >= 5 and stored_hw[row][0] != stored_hw[row][1]]
    misfits: dict[int, tuple[str, npt.NDArray[np.float64]]] = {}
    if not turned:
        return misfits
    for row in np.intersect1d(turned, image).tolist():
        own, hw = boxes[image == row], stored_hw[row]
        upright = upright_hw(hw, orientation[row])
        if stored_frame[row]:  # the numbers in the file are those before the reader rotated them
            own = unorient_boxes(own, hw, orientation[row])
        here, there = (hw, upright) if stored_frame[row] else (upright, hw)
        if _beyond(own, here) > BEYOND >= _beyond(own, there):
            other = own if stored_frame[row] else orient_boxes(own, hw, orientation[row])
            misfits[row] = (OF_UPRIGHT if stored_frame[row] else OF_STORED, other)
    return misfits


def _beyond(boxes: npt.NDArray[np.float64], size_hw: tuple[int, int]) -> float:
    return float(pixels_outside(boxes, np.tile(size_hw, (len(boxes), 1))).max(initial=-np.inf))
