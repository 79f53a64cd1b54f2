"""Find instances whose numbers contradict each other: area and box, box and outline, two instances in one place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.instance_name import instance_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding
from detseg.masks import segmentation_area, segmentation_box
from detseg.orientation import upright_hw

AREA_TOLERANCE = 1.01
"""A mask cannot be larger than its box; 1 % tolerance for areas rounded to whole pixels."""

OF_BOX, OF_OUTLINE = 1 / 20, 1 / 4
"""An area is far too small below this share of the box (the masks of real objects, thin ones included, are rarely so
small a part of it), and, where there is an outline, also below this share of the pixels in it."""

OVERLAP = 0.5
"""IoU of a box and the box around its outline below which they disagree: rounding and clipping change it by less."""

NAMED = 3
"""Instances that a message names."""


def inspect_objects(table: AnnotationTable) -> list[Finding]:
    """Find areas larger than their box or far smaller, boxes that disagree with their outline, and instances that are
    there twice."""
    return [*_large_areas(table), *_small_areas(table), *_different_outlines(table), *_repeated(table)]


def _images(table: AnnotationTable) -> npt.NDArray[np.int64]:
    """int64: the image (row of the table) of each row of ``trained_rows``."""
    instances = table.instance_rows()
    images = np.repeat(np.arange(len(table)), table.instances_per_image())
    return images[~(table.iscrowd[instances] | table.ignore[instances])]


def _box_areas(table: AnnotationTable, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(table.boxes_xywh[rows, 2] * table.boxes_xywh[rows, 3])


def _large_areas(table: AnnotationTable) -> list[Finding]:
    rows = table.instance_rows()
    box_area = _box_areas(table, rows)
    findings = []
    for index in np.flatnonzero(table.area[rows] > box_area * AREA_TOLERANCE + 1):
        place = instance_name(table, int(rows[index]))
        findings.append(
            Finding(
                "area larger than the box",
                place,
                f"{place}: area {table.area[rows[index]]:g} in a box of {box_area[index]:g} square pixels; "
                "evaluation would assign it to the wrong size range: correct the area",
            )
        )
    return findings


def _small_areas(table: AnnotationTable) -> list[Finding]:
    rows = table.trained_rows()
    suspects = rows[table.area[rows] < _box_areas(table, rows) * OF_BOX - 1]
    wrong = [row for row in suspects.tolist() if _is_too_small(table, row)]
    if not wrong:
        return []
    box_area = _box_areas(table, np.array(wrong, np.int64))
    examples = [
        f"{instance_name(table, row)}: area {table.area[row]:g} in a box of {box:g} square pixels"
        for row, box in zip(wrong[:NAMED], box_area.tolist(), strict=False)
    ]
    message = (
        f"{len(wrong)} of {len(rows)} instances have an area far smaller than their box "
        f"({_examples(examples, wrong)}); evaluation would assign them to the wrong size range: correct the areas, or "
        "remove them from the file, and they are computed"
    )
    return [Finding("area far smaller than the box", instance_name(table, wrong[0]), message)]


def _is_too_small(table: AnnotationTable, row: int) -> bool:
    segmentation = table.segmentation[row]
    if segmentation is None:
        return True
    image = int(np.flatnonzero((table.start <= row) & (row < table.stop))[0])
    return bool(table.area[row] < OF_OUTLINE * segmentation_area(segmentation, table[image].size_hw))


def _different_outlines(table: AnnotationTable) -> list[Finding]:
    rows, images = table.trained_rows(), _images(table)
    has_outline = table.segmentation.present()[rows]
    rows, images = rows[has_outline], images[has_outline]
    pairs = zip(rows.tolist(), images.tolist(), strict=True)
    outlines = np.array([_extent(table, row, image) for row, image in pairs]).reshape(-1, 4)
    wrong = rows[_iou(table.boxes_xywh[rows], outlines) < OVERLAP]
    if not len(wrong):
        return []
    extents = dict(zip(rows.tolist(), outlines.tolist(), strict=True))
    examples = [
        f"{instance_name(table, row)}: box {_numbers(table.boxes_xywh[row].tolist())}, outline in "
        f"{_numbers(extents[row])}"
        for row in wrong[:NAMED].tolist()
    ]
    message = (
        f"{len(wrong)} of {len(rows)} boxes (x, y, width, height) are not those of their outlines "
        f"({_examples(examples, wrong.tolist())}): correct the boxes (is y counted from the bottom?), or remove them "
        "from the file, and they are computed from the outlines"
    )
    return [Finding("box and outline disagree", instance_name(table, int(wrong[0])), message)]


def _extent(table: AnnotationTable, row: int, image: int) -> npt.NDArray[np.float64]:
    """float64 [4]: x, y, width, height of the box around the outline of an instance, within its image."""
    x, y, width, height = segmentation_box(table.segmentation[row] or [np.zeros((1, 2))])
    size_hw = upright_hw((int(table.height[image]), int(table.width[image])), int(table.orientation[image]))
    low, high = np.clip([[x, y], [x + width, y + height]], 0, size_hw[::-1])
    return np.concatenate([low, high - low])


def _iou(boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 [N]: IoU of each of two boxes x, y, width, height; sides are at least a pixel, so that the outline of
    a line has a box."""
    sides, other_sides = np.maximum(boxes[:, 2:], 1), np.maximum(others[:, 2:], 1)
    low = np.maximum(boxes[:, :2], others[:, :2])
    high = np.minimum(boxes[:, :2] + sides, others[:, :2] + other_sides)
    shared = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(shared / (sides.prod(axis=1) + other_sides.prod(axis=1) - shared))


def _repeated(table: AnnotationTable) -> list[Finding]:
    rows = table.trained_rows()
    keys = np.column_stack([_images(table), table.label[rows], np.rint(table.boxes_xywh[rows] * 100)]).astype(np.int64)
    _, first, number_of = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    originals = rows[first[number_of.ravel()]]
    copies = np.flatnonzero(originals != rows)
    if not len(copies):
        return []
    examples = [
        f"{instance_name(table, int(rows[copy]))} = {instance_name(table, int(originals[copy])).rpartition(', ')[2]} "
        f"({table.class_map.name_of(int(table.label[rows[copy]]))})"
        for copy in copies[:NAMED]
    ]
    message = (
        f"{len(copies)} of {len(rows)} instances have the class and the box of another one in their image "
        f"({_examples(examples, copies.tolist())}): a network learns to find two objects where there is one: remove one"
    )
    return [Finding("repeated instance", instance_name(table, int(rows[copies[0]])), message)]


def _examples(examples: list[str], instances: list[int]) -> str:
    return "; ".join(examples) + ("; ..." if len(instances) > len(examples) else "")


def _numbers(numbers: list[float]) -> str:
    return f"[{', '.join(f'{number:.6g}' for number in numbers)}]"
