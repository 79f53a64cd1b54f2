"""What the columns alone give away: no file is opened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

AREA_SLACK = 1.01
"""An outline cannot cover more than its box; 1 % is left to the rounding of whole-pixel areas."""


def inspect_table(table: AnnotationTable) -> list[Finding]:
    """Files that are annotated under several image ids, areas larger than the box they belong to, and objects without
    an outline where others have one."""
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
            "put all its objects under one image id",
        )
        for name, ids in ids_of.items()
        if len(ids) > 1
    ]


def _missing_masks(table: AnnotationTable) -> list[Finding]:
    """One such object is enough to make a set that teaches boxes only; a set without any mask was meant so."""
    rows = table.trained_rows()
    lacking = rows[~table.segmentation.present()[rows]]
    if len(lacking) == len(rows):
        return []
    image_of = dict(zip(table.instance_rows().tolist(), _images(table).tolist(), strict=True))
    findings = []
    for row in lacking.tolist():
        place = f"{file_name(table, image_of[row])}, annotation {table.annotation_id[row]}"
        findings.append(
            Finding(
                "object without a mask",
                place,
                f"{place}: {len(rows) - len(lacking)} of {len(rows)} objects have a mask, this one has none, so this "
                "data can teach boxes only: outline it, or remove it",
            )
        )
    return findings


def _images(table: AnnotationTable) -> npt.NDArray[np.int64]:
    """int64: the image (row of the table) of each of ``instance_rows``."""
    return np.repeat(np.arange(len(table)), table.instances_per_image())


def _large_areas(table: AnnotationTable) -> list[Finding]:
    rows = table.instance_rows()
    images = _images(table)
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
