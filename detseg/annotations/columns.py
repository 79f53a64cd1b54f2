"""Store many instances as columns; find those that need no change, select and concatenate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.segmentation import SegmentationColumn

ROUNDING = 1e-9
"""Pixels by which x + width may exceed the image unclipped: decimals of a file do not add up exactly in binary."""


@dataclass(frozen=True)
class InstanceColumns:
    """N instances; the columns are described in :meth:`TableBuilder.add_instance`.

    Attributes:
        image: int64 [N], row of each instance's image.
        boxes_xywh: float64 [N, 4]; NaN where there is none.
        area: float64 [N]; NaN where it is unknown.
        keypoints: float64 [N, P, 3]; P is 0 without a schema.
    """

    image: npt.NDArray[np.int64]
    boxes_xywh: npt.NDArray[np.float64]
    label: npt.NDArray[np.int32]
    area: npt.NDArray[np.float64]
    iscrowd: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    annotation_id: npt.NDArray[np.int64]
    segmentation: SegmentationColumn
    keypoints: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: npt.NDArray[np.int64]) -> InstanceColumns:
        """The instances in ``rows``, in that order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        values: dict[str, Any] = {
            column.name: getattr(self, column.name)[rows] for column in fields(self) if column.name != "segmentation"
        }
        return InstanceColumns(segmentation=self.segmentation.take(rows), **values)

    @classmethod
    def concatenate(cls, parts: Sequence[InstanceColumns]) -> InstanceColumns:
        """Concatenate the instances of one or more tables of columns, in order."""
        if len(parts) == 1:
            return parts[0]
        values: dict[str, Any] = {
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(cls)
            if column.name != "segmentation"
        }
        return cls(segmentation=SegmentationColumn.concatenate([part.segmentation for part in parts]), **values)

    def regular(self, size_hw: npt.NDArray[np.int64], num_labels: int) -> npt.NDArray[np.bool_]:
        """bool [N]: instances that need no change: no value to compute, no box to clip, nothing to report.

        Args:
            size_hw: int64 [I, 2], upright height and width of the images.
            num_labels: K; labels are 1..K.
        """
        height, width = size_hw[self.image].T
        x, y, w, h = self.boxes_xywh.T
        with np.errstate(invalid="ignore"):  # NaN compares false, as intended
            inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (w > 0) & (h > 0)
            inside &= (w <= width - x + ROUNDING) & (h <= height - y + ROUNDING)
        rle_hw = self.segmentation.rle_hw
        rle_size_matches = (rle_hw == 0).all(axis=1) | ((rle_hw[:, 0] == height) & (rle_hw[:, 1] == width))
        valid_label = (self.label >= 1) & (self.label <= num_labels)
        return inside & np.isfinite(self.area) & rle_size_matches & valid_label
