"""What the columns alone give away: no file is opened."""

from __future__ import annotations

import numpy as np

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

AREA_SLACK = 1.01
"""An outline cannot cover more than its box; 1 % is left to the rounding of whole-pixel areas."""


def inspect_table(table: AnnotationTable) -> list[Finding]:
    """Files that are annotated under several image ids, and areas larger than the box they belong to."""
    return [*_repeated_files(table), *_large_areas(table)]


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
            "put all its objects under one image id",
        )
        for name, ids in ids_of.items()
        if len(ids) > 1
    ]


def _large_areas(table: AnnotationTable) -> list[Finding]:
    rows = table.instance_rows()
    images = np.repeat(np.arange(len(table)), table.instances_per_image())
    box = table.boxes_xywh[rows, 2] * table.boxes_xywh[rows, 3]
    findings = []
    for at in np.flatnonzero(table.area[rows] > box * AREA_SLACK + 1):
        place = f"{file_name(table, int(images[at]))}, annotation {table.annotation_id[rows[at]]}"
        findings.append(
            Finding(
                "area larger than the box",
                place,
                f"{place}: area {table.area[rows[at]]:g} in a box of {box[at]:g} square pixels; "
                "evaluation would sort it into the wrong size class: correct the area",
            )
        )
    return findings
