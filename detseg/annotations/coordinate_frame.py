"""Convert between the coordinates of a data set and those of the upright image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.annotations.segmentation import Segmentation
from detseg.images import ImageHeader
from detseg.orientation import (
    orient_boxes,
    orient_points,
    orient_rle,
    unorient_boxes,
    unorient_points,
    unorient_rle,
    upright_hw,
)
from detseg.structures import RLE

Float64 = npt.NDArray[np.float64]
Coordinates = tuple[Float64 | None, Segmentation, Float64 | None]
"""One instance: box float64 [4] x, y, width, height; segmentation; keypoints float64 [P, 3]. None where missing."""


@dataclass(frozen=True)
class Frame:
    """The coordinate frame in which a data set stores the annotations of one image.

    Attributes:
        stored_hw: height and width of the stored pixels.
        orientation: EXIF orientation that converts from the data set's frame to the upright one: that of the file if
            the coordinates are those of the stored pixels, else 1 (coordinates stay bit-identical).
    """

    stored_hw: tuple[int, int]
    orientation: int

    def to_upright(self, box: Float64 | None, segmentation: Segmentation, keypoints: Float64 | None) -> Coordinates:
        """Convert one instance from the data set's frame to upright coordinates."""
        return self._converted(box, segmentation, keypoints, orient_boxes, orient_points, orient_rle)

    def from_upright(self, box: Float64 | None, segmentation: Segmentation, keypoints: Float64 | None) -> Coordinates:
        """Convert one instance from upright coordinates to the data set's frame."""
        return self._converted(box, segmentation, keypoints, unorient_boxes, unorient_points, unorient_rle)

    def _converted(
        self,
        box: Float64 | None,
        segmentation: Segmentation,
        keypoints: Float64 | None,
        convert_boxes: Callable[[Float64, tuple[int, int], int], Float64],
        convert_points: Callable[[Float64, tuple[int, int], int], Float64],
        convert_rle: Callable[[RLE, int], RLE],
    ) -> Coordinates:
        if self.orientation == 1:
            return box, segmentation, keypoints
        if box is not None:
            box = convert_boxes(box[None], self.stored_hw, self.orientation)[0]
        if isinstance(segmentation, dict):
            segmentation = convert_rle(segmentation, self.orientation)
        elif segmentation is not None:
            segmentation = [convert_points(ring, self.stored_hw, self.orientation) for ring in segmentation]
        if keypoints is not None:
            xy = convert_points(keypoints[:, :2], self.stored_hw, self.orientation)
            converted = np.column_stack([xy, keypoints[:, 2]])
            keypoints = np.where(keypoints[:, 2:] > 0, converted, keypoints)  # (0, 0, 0) means "not labelled"
        return box, segmentation, keypoints


def is_stored_frame(annotated_hw: tuple[int, int] | None, header: ImageHeader) -> bool | None:
    """Whether coordinates are those of the stored pixels; None if the annotated size matches neither.

    Sizes that match both (squares, flips, 180 degree rotations) mean stored: COCO's own annotations ignore EXIF.
    """
    if annotated_hw in (header.size_hw, None):
        return header.orientation != 1
    return False if annotated_hw == upright_hw(header.size_hw, header.orientation) else None
