"""The instances that a builder collects, one by one and many at once, in the order of their images."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from detseg.annotations.columns import InstanceColumns
from detseg.annotations.segmentation import Segmentation, SegmentationColumn

Box = tuple[float, float, float, float]


class Instances:
    """Instances that were checked before.

    Args:
        points: P, how many keypoints each has; 0 without a schema.
    """

    def __init__(self, points: int) -> None:
        self._points = points
        self._place = 0  # of the next one; within an image instances are sorted by it
        self._columns: list[InstanceColumns] = []
        self._columns_place: list[npt.NDArray[np.int64]] = []  # -1 where an instance was left to `add`

        self._single_place = array("q")
        self._image = array("q")
        self._boxes = array("d")
        self._label: list[int] = []
        self._area: list[float] = []
        self._flags: list[tuple[bool, bool, bool]] = []
        self._annotation_id: list[int] = []
        self._segmentation: list[Segmentation] = []
        self._keypoints: list[npt.NDArray[np.float64]] = []

        self._given_boxes = array("d")
        self._given_image = array("q")
        self._given_place = array("q")

    def give(self, image: int, box: Box) -> None:
        """Remember a box as it is given, before it is clipped or dropped: evidence for ``check_plausible``."""
        self._given_boxes.extend(box)
        self._given_image.append(image)
        self._given_place.append(self._place)

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
        """Add one; ``flags`` are iscrowd, ignore, difficult."""
        self._single_place.append(self._place)
        self._image.append(image)
        self._boxes.extend(box)
        self._label.append(int(label))
        self._area.append(float(area))
        self._flags.append(flags)
        self._annotation_id.append(annotation_id)
        self._segmentation.append(segmentation)
        if keypoints is not None:
            self._keypoints.append(keypoints)
        self._place += 1

    def extend(self, columns: InstanceColumns, regular: npt.NDArray[np.bool_], add: Callable[[int], object]) -> None:
        """Add those that are ``regular``, bool [N]; call ``add`` for the number of each other one, image by image.

        What ``add`` appends takes the place of that instance.
        """
        order = np.argsort(columns.image, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(self._place, self._place + len(order))
        end = self._place + len(order)
        for i in order[~regular[order]].tolist():
            self._place = int(place[i])
            add(i)
        self._place = end
        self._columns.append(columns)
        self._columns_place.append(np.where(regular, place, -1))

    def given(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """float64 [M, 4] and int64 [M]: the boxes as they were given, and their images."""
        places = np.concatenate([*self._columns_place, np.array(self._given_place, np.int64)])
        boxes = np.concatenate([*(part.boxes_xywh for part in self._columns), _rows_of_four(self._given_boxes)])
        image = np.concatenate([*(part.image for part in self._columns), np.array(self._given_image, np.int64)])
        order = _in_order(image, places)
        return boxes[order], image[order]

    def in_order(self) -> InstanceColumns:
        """All that were added, by image."""
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
        together = InstanceColumns.concatenate(
            [*self._columns, *([single] if len(single) or not self._columns else [])]
        )
        places = np.concatenate([*self._columns_place, np.array(self._single_place, np.int64)])
        return together.take(_in_order(together.image, places))


def _in_order(image: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64: those that have a place, by image and within an image by place."""
    there = np.flatnonzero(places >= 0)
    if (np.diff(image[there]) >= 0).all() and (np.diff(places[there]) >= 0).all():
        return there
    return there[np.lexsort((places[there], image[there]))]


def _rows_of_four(numbers: array[float]) -> npt.NDArray[np.float64]:
    return np.array(numbers, np.float64).reshape(-1, 4)
