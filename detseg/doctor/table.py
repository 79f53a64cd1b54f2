"""Find problems in the columns of a table, without opening files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

AREA_TOLERANCE = 1.01
"""A mask cannot be larger than its box; 1 % tolerance for areas rounded to whole pixels."""


def inspect_table(table: AnnotationTable) -> list[Finding]:
    """Find files annotated under several image ids, areas larger than their box, and instances without a mask if others
    have one."""
    return [*_repeated_files(table), *_large_areas(table), *_missing_masks(table)]


def _repeated_files(table: AnnotationTable) -> list[Finding]:
    ids_of: dict[str, list[int]] = {}
    for row in range(len(table)):
        if str(table.media[row]):
            ids_of.setdefault(file_name(table, row), []).append(int(table.image_id[row]))
    return [
        Finding(
            "repeated file",
            name,
            f"{name}: annotated {len(ids)} times, as image ids {', '.join(map(str, ids))}; "
            "put all its instances under one image id",
        )
        for name, ids in ids_of.items()
        if len(ids) > 1
    ]


def _missing_masks(table: AnnotationTable) -> list[Finding]:
    """One such instance limits training to boxes; a data set without any mask is considered intentional."""
    rows = table.trained_rows()
    without_mask = rows[~table.segmentation.present()[rows]]
    if len(without_mask) == len(rows):
        return []
    image_of = dict(zip(table.instance_rows().tolist(), _images(table).tolist(), strict=True))
    findings = []
    for row in without_mask.tolist():
        place = f"{file_name(table, image_of[row])}, annotation {table.annotation_id[row]}"
        findings.append(
            Finding(
                "instance without a mask",
                place,
                f"{place}: {len(rows) - len(without_mask)} of {len(rows)} instances have a mask, this one has none, so "
                "only boxes can be trained on this data: add its mask, or remove it",
            )
        )
    return findings


def _images(table: AnnotationTable) -> npt.NDArray[np.int64]:
    """int64: the image (row of the table) of each row of ``instance_rows``."""
    return np.repeat(np.arange(len(table)), table.instances_per_image())


def _large_areas(table: AnnotationTable) -> list[Finding]:
    rows = table.instance_rows()
    images = _images(table)
    box_area = table.boxes_xywh[rows, 2] * table.boxes_xywh[rows, 3]
    findings = []
    for index in np.flatnonzero(table.area[rows] > box_area * AREA_TOLERANCE + 1):
        place = f"{file_name(table, int(images[index]))}, annotation {table.annotation_id[rows[index]]}"
        findings.append(
            Finding(
                "area larger than the box",
                place,
                f"{place}: area {table.area[rows[index]]:g} in a box of {box_area[index]:g} square pixels; "
                "evaluation would assign it to the wrong size range: correct the area",
            )
        )
    return findings
