"""Collect instances for the table builder, one by one or many at once, and sort them by image."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from detseg.annotations.columns import InstanceColumns
from detseg.annotations.segmentation import Segmentation, SegmentationColumn

Box = tuple[float, float, float, float]


class Instances:
    """Collection of instances that are already checked.

    Args:
        points: P, the number of keypoints of each instance; 0 without a schema.
    """

    def __init__(self, points: int) -> None:
        self._points = points
        self._position = 0  # of the next instance; within an image, instances are sorted by position
        self._columns: list[InstanceColumns] = []
        self._columns_position: list[npt.NDArray[np.int64]] = []  # -1 where `add` was called for the instance

        self._single_position = array("q")
        self._image = array("q")
        self._boxes = array("d")
        self._label: list[int] = []
        self._area: list[float] = []
        self._flags: list[tuple[bool, bool, bool]] = []
        self._annotation_id: list[int] = []
        self._segmentation: list[Segmentation] = []
        self._keypoints: list[npt.NDArray[np.float64]] = []

        self._source_boxes = array("d")
        self._source_image = array("q")
        self._source_position = array("q")

    def record_source_box(self, image: int, box: Box) -> None:
        """Record a box as written in the source, before it is clipped or dropped, for ``check_plausible``."""
        self._source_boxes.extend(box)
        self._source_image.append(image)
        self._source_position.append(self._position)

    def append(
        self,
        image: int,
        box: Box,
        label: int,
        area: float,
        flags: tuple[bool, bool, bool],
        annotation_id: int,
        segmentation: Segmentation,
        keypoints: npt.NDArray[np.float64] | None,
    ) -> None:
        """Add one instance; ``flags`` are iscrowd, ignore, difficult."""
        self._single_position.append(self._position)
        self._image.append(image)
        self._boxes.extend(box)
        self._label.append(int(label))
        self._area.append(float(area))
        self._flags.append(flags)
        self._annotation_id.append(annotation_id)
        self._segmentation.append(segmentation)
        if keypoints is not None:
            self._keypoints.append(keypoints)
        self._position += 1

    def extend(self, columns: InstanceColumns, regular: npt.NDArray[np.bool_], add: Callable[[int], object]) -> None:
        """Add the instances that are ``regular``, bool [N]; call ``add`` with the index of each other one, by image.

        What ``add`` appends is stored at the position of that instance.
        """
        order = np.argsort(columns.image, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(self._position, self._position + len(order))
        end = self._position + len(order)
        for i in order[~regular[order]].tolist():
            self._position = int(position[i])
            add(i)
        self._position = end
        self._columns.append(columns)
        self._columns_position.append(np.where(regular, position, -1))

    def source_boxes(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """float64 [M, 4] and int64 [M]: the boxes as written in the source, and the rows of their images."""
        positions = np.concatenate([*self._columns_position, np.array(self._source_position, np.int64)])
        boxes = np.concatenate([*(part.boxes_xywh for part in self._columns), _rows_of_four(self._source_boxes)])
        image = np.concatenate([*(part.image for part in self._columns), np.array(self._source_image, np.int64)])
        order = _in_order(image, positions)
        return boxes[order], image[order]

    def in_order(self) -> InstanceColumns:
        """All instances, sorted by image."""
        flags = np.array(self._flags, np.bool_).reshape(-1, 3)
        single = InstanceColumns(
            image=np.array(self._image, np.int64),
            boxes_xywh=_rows_of_four(self._boxes),
            label=np.array(self._label, np.int32),
            area=np.array(self._area, np.float64),
            iscrowd=flags[:, 0].copy(),
            ignore=flags[:, 1].copy(),
            difficult=flags[:, 2].copy(),
            annotation_id=np.array(self._annotation_id, np.int64),
            segmentation=SegmentationColumn.from_list(self._segmentation),
            keypoints=np.array(self._keypoints, np.float64).reshape(len(self._label), self._points, 3),
        )
        combined = InstanceColumns.concatenate(
            [*self._columns, *([single] if len(single) or not self._columns else [])]
        )
        positions = np.concatenate([*self._columns_position, np.array(self._single_position, np.int64)])
        return combined.take(_in_order(combined.image, positions))


def _in_order(image: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64: the instances with a position >= 0, sorted by image, and within an image by position."""
    present = np.flatnonzero(positions >= 0)
    if (np.diff(image[present]) >= 0).all() and (np.diff(positions[present]) >= 0).all():
        return present
    return present[np.lexsort((positions[present], image[present]))]


def _rows_of_four(numbers: array[float]) -> npt.NDArray[np.float64]:
    return np.array(numbers, np.float64).reshape(-1, 4)
