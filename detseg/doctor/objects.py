"""Find objects whose numbers contradict each other: area and box, box and outline, two objects in one place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.instance_box import format_box, outline_box
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import BOX_OF_OUTLINE, COMPUTE_AREA, REMOVE_OBJECT, Finding
from detseg.masks import segmentation_area

Float64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

AREA_TOLERANCE = 1.01
"""A mask cannot be larger than its box; 1 % tolerance for areas rounded to whole pixels."""

OF_BOX, OF_OUTLINE = 1 / 20, 1 / 4
"""An area is far too small below this share of the box (the masks of real objects, thin ones included, are rarely so
small a part of it), and, where there is an outline, also below this share of the pixels in it."""

OVERLAP = 0.5
"""IoU of a box and the box around its outline below which they disagree: rounding and clipping change it by less."""

EXPLAINED = 0.9
"""IoU of a box in another format and the outline from which that format explains the box."""

NEARLY = 0.95
"""IoU from which two boxes of one class are one object that is labelled twice; objects behind each other have less."""

EQUAL = 0.005
"""Pixels by which the numbers of equal boxes may differ, for what programs round."""

NEIGHBOURS = 5
"""Boxes of a class and image are sorted by their left side, and compared with this number of the following ones."""

LEAST_SIDE = 1.0
"""Pixels: an object with a shorter side was hardly drawn on purpose."""


@dataclass(frozen=True)
class _Objects:
    """The training objects of a table: their rows, and the row of the image of each."""

    table: AnnotationTable
    rows: Rows
    images: Rows

    @classmethod
    def of(cls, table: AnnotationTable) -> _Objects:
        instances = table.instance_rows()
        images = np.repeat(np.arange(len(table)), table.instances_per_image())
        trained = ~(table.iscrowd[instances] | table.ignore[instances])
        return cls(table, instances[trained], images[trained])

    @cached_property
    def boxes(self) -> Float64:
        return np.asarray(self.table.boxes_xywh[self.rows], np.float64)

    def finding(self, index: int, kind: str, value: str, remedy: str, fix: str = "") -> Finding:
        """A warning about the object with this index."""
        row, image = int(self.rows[index]), int(self.images[index])
        return Finding(
            "warning", kind, file_name(self.table, image), value, remedy, self.name(index), fix, image=image, row=row
        )

    def name(self, index: int) -> str:
        """As in ``instance_name``, without the file."""
        row, image = int(self.rows[index]), int(self.images[index])
        number = int(self.table.annotation_id[row])
        return f"annotation {number}" if number >= 0 else f"instance {row - int(self.table.start[image]) + 1}"


def inspect_objects(table: AnnotationTable, *, outlines: bool = True) -> list[Finding]:
    """Find areas larger than their box or far smaller, boxes of less than a pixel, boxes that disagree with their
    outline, and objects that are there twice, or nearly.

    Args:
        outlines: also compare with the outlines, which takes most of the time.
    """
    objects = _Objects.of(table)
    return [
        *_large_areas(objects),
        *_small_areas(objects),
        *_small_boxes(objects),
        *(_different_outlines(objects) if outlines else []),
        *_repeated(objects),
    ]


def inspect_masks(table: AnnotationTable) -> list[Finding]:
    """Find objects without a mask among others with one: one of them limits training to boxes. A data set without any
    mask is considered intentional."""
    objects = _Objects.of(table)
    without = np.flatnonzero(~table.segmentation.present()[objects.rows]).tolist()
    number, missing = len(objects.rows), len(without)
    if missing == number:
        return []
    return [
        objects.finding(
            index,
            "instance without a mask",
            f"{number - missing} of {number} instances have a mask, this one has none, so only boxes can be trained on "
            "this data",
            "add its mask, or remove it",
        )
        for index in without
    ]


def _large_areas(objects: _Objects) -> list[Finding]:
    areas, box_areas = objects.table.area[objects.rows], objects.boxes[:, 2:].prod(axis=1)
    return [
        objects.finding(
            index,
            "area larger than the box",
            f"area {areas[index]:g} in a box of {box_areas[index]:g} square pixels",
            "correct the area, or remove it from the file, and it is computed: evaluation assigns it to the wrong size "
            "range",
            COMPUTE_AREA,
        )
        for index in np.flatnonzero(areas > box_areas * AREA_TOLERANCE + 1).tolist()
        if not _is_area_of_outline(objects, index)  # then it is the box that is wrong
    ]


def _is_area_of_outline(objects: _Objects, index: int) -> bool:
    segmentation = objects.table.segmentation[int(objects.rows[index])]
    if segmentation is None:
        return False
    area = segmentation_area(segmentation, _size_hw(objects, index))
    return bool(abs(objects.table.area[objects.rows[index]] - area) <= (AREA_TOLERANCE - 1) * area + 1)


def _small_areas(objects: _Objects) -> list[Finding]:
    areas, box_areas = objects.table.area[objects.rows], objects.boxes[:, 2:].prod(axis=1)
    suspects = np.flatnonzero(areas < box_areas * OF_BOX - 1).tolist()
    return [
        objects.finding(
            index,
            "area far smaller than the box",
            f"area {areas[index]:g} in a box of {box_areas[index]:g} square pixels",
            "correct the area, or remove it from the file, and it is computed: evaluation assigns it to the wrong size "
            "range",
            COMPUTE_AREA,
        )
        for index in suspects
        if _is_too_small(objects, index)
    ]


def _is_too_small(objects: _Objects, index: int) -> bool:
    table, row = objects.table, int(objects.rows[index])
    segmentation = table.segmentation[row]
    if segmentation is None:
        return True
    return bool(table.area[row] < OF_OUTLINE * segmentation_area(segmentation, _size_hw(objects, index)))


def _small_boxes(objects: _Objects) -> list[Finding]:
    sides = objects.boxes[:, 2:]
    return [
        objects.finding(
            index,
            "box of less than a pixel",
            f"width {sides[index, 0]:.3g} and height {sides[index, 1]:.3g} pixels",
            "correct it (is it normalised to 0..1?), or remove it",
        )
        for index in np.flatnonzero(sides.min(axis=1, initial=np.inf) < LEAST_SIDE).tolist()
    ]


def _different_outlines(objects: _Objects) -> list[Finding]:
    indices = np.flatnonzero(objects.table.segmentation.present()[objects.rows])
    extents = np.array([_extent(objects, index) for index in indices.tolist()]).reshape(-1, 4)
    boxes = objects.boxes[indices]
    overlap = box_iou(boxes, extents)
    findings = []
    for at in np.flatnonzero(overlap < OVERLAP).tolist():
        index = int(indices[at])
        explanation = _explanation(boxes[at], extents[at], _size_hw(objects, index)[0])
        remedy = f"correct the box{explanation}, or remove it from the file, and it is computed from the outline"
        if not overlap[at] and not explanation:
            remedy = "correct the box or the outline: they are in different places"
        findings.append(
            objects.finding(
                index,
                "box and outline disagree",
                f"box (x, y, width, height) {format_box(boxes[at])}, outline in {format_box(extents[at])}",
                remedy,
                BOX_OF_OUTLINE if overlap[at] or explanation else "",
            )
        )
    return findings


def _explanation(box: Float64, extent: Float64, height: int) -> str:
    """Which other meaning of the numbers of a box makes it that of its outline; "" for none."""
    x, y, w, h = box.tolist()
    meanings = {
        " (its numbers are x1, y1, x2, y2)": (x, y, w - x, h - y),
        " (its numbers are the centre and the size)": (x - w / 2, y - h / 2, w, h),
        " (y is counted from the bottom)": (x, height - y - h, w, h),
        " (x and y are exchanged)": (y, x, h, w),
    }
    for text, meaning in meanings.items():
        if min(meaning[2:]) > 0 and box_iou(np.array([meaning]), extent[None])[0] >= EXPLAINED:
            return text
    return ""


def _size_hw(objects: _Objects, index: int) -> tuple[int, int]:
    """Upright height and width of the image of an object."""
    return objects.table.size_hw(int(objects.images[index]))


def _extent(objects: _Objects, index: int) -> Float64:
    """float64 [4]: x, y, width, height of the box around the outline of an object, within its image."""
    outline = objects.table.segmentation[int(objects.rows[index])] or [np.zeros((1, 2))]
    return outline_box(outline, _size_hw(objects, index))


def box_iou(boxes: Float64, others: Float64) -> Float64:
    """float64 [N]: IoU of each of two boxes x, y, width, height; sides are at least a pixel, so that the outline of
    a line has a box."""
    sides, other_sides = np.maximum(boxes[:, 2:], 1), np.maximum(others[:, 2:], 1)
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + sides, others[:, :2] + other_sides)
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(shared / (sides.prod(axis=1) + other_sides.prod(axis=1) - shared))


def _repeated(objects: _Objects) -> list[Finding]:
    labels, boxes = objects.table.label[objects.rows], objects.boxes
    order = np.lexsort((boxes[:, 1], boxes[:, 0], labels, objects.images))
    exact: dict[int, int] = {}
    nearly: dict[int, int] = {}
    for distance in range(1, NEIGHBOURS + 1):
        one, other = order[:-distance], order[distance:]
        same = (objects.images[one] == objects.images[other]) & (labels[one] == labels[other])
        same &= boxes[other, 0] - boxes[one, 0] <= (1 - NEARLY) * boxes[one, 2] + EQUAL
        one, other = one[same], other[same]
        is_equal = (np.abs(boxes[one] - boxes[other]) <= EQUAL).all(axis=1)
        is_near = is_equal | (box_iou(boxes[one], boxes[other]) >= NEARLY)
        for first, second, equal in zip(one[is_near].tolist(), other[is_near].tolist(), is_equal[is_near], strict=True):
            (exact if equal else nearly).setdefault(max(first, second), min(first, second))
    findings = [
        objects.finding(
            copy,
            "repeated object",
            f"the class and the box of {objects.name(original)} ({_class_name(objects, copy)})",
            "remove one: a network learns to find two objects where there is one",
            REMOVE_OBJECT,
        )
        for copy, original in sorted(exact.items())
    ]
    findings += [
        objects.finding(
            copy,
            "nearly repeated object",
            f"nearly the box of {objects.name(original)}, of the same class ({_class_name(objects, copy)})",
            "remove one, if they are one object",
        )
        for copy, original in sorted(nearly.items())
        if copy not in exact and original not in exact
    ]
    return findings


def _class_name(objects: _Objects, index: int) -> str:
    return objects.table.class_map.name_of(int(objects.table.label[objects.rows[index]]))
