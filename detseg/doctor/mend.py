"""Mend what is safe and unambiguous in a table, and list every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from detseg.annotations.groups import file_name
from detseg.annotations.instance_box import outline_box
from detseg.annotations.rename import rename_classes, select_classes
from detseg.annotations.segmentation import starts
from detseg.annotations.table import INSTANCE_COLUMNS, AnnotationTable
from detseg.doctor.findings import (
    BOX_OF_OUTLINE,
    COMPUTE_AREA,
    JOIN_RECORDS,
    LEAVE_OUT_IMAGE,
    MERGE_CLASSES,
    REMOVE_CLASS,
    REMOVE_OBJECT,
    Finding,
)
from detseg.doctor.table import inspect_table
from detseg.errors import DataError
from detseg.masks import segmentation_area

ROUNDS = 12
"""A mended table is checked again so often at most: joined records may have objects twice, merged classes too."""


@dataclass(frozen=True)
class Change:
    """One change of the data.

    Attributes:
        kind: of the finding that it mends, or of a repair by the reader.
        place: the image or file, and the object in it.
        value: what was wrong.
        change: what was done.
    """

    kind: str
    place: str
    value: str
    change: str

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON-serializable values."""
        return asdict(self)


def mended(table: AnnotationTable, findings: Sequence[Finding]) -> tuple[AnnotationTable, list[Change]]:
    """The table without what the findings say that can be mended, and the changes; files are not written.

    Args:
        table: that was inspected.
        findings: of ``inspect_images`` of this table; those of ``inspect_table`` are found again after each change.

    Raises:
        DataError: no image is left.
    """
    left_out = {finding.image: finding for finding in findings if finding.fix == LEAVE_OUT_IMAGE}
    changes = _changes(list(left_out.values()))
    if len(left_out) == len(table) > 0:
        raise DataError(f"{table.source}: none of the {len(table)} images can be decoded, so nothing is left to write")
    if left_out:
        bad = {str(table.media[row]) for row in left_out}
        table = table.subset([row for row in range(len(table)) if str(table.media[row]) not in bad])
    mended_before: set[str] = set()
    for _ in range(ROUNDS):
        fixable = [finding for finding in inspect_table(table) if finding.fix and finding.line() not in mended_before]
        if not fixable:
            break
        fix = fixable[0].fix  # rows change with some of them: one kind after the other
        of_kind = [finding for finding in fixable if finding.fix == fix]
        mended_before.update(finding.line() for finding in of_kind)  # what stays in spite of it is left to a person
        table = _MEND[fix](table, of_kind)
        changes += _changes(of_kind)
    return replace(table, record=np.arange(len(table), dtype=np.int64)), changes


def reader_changes(table: AnnotationTable) -> list[Change]:
    """What the reader repaired or left out; of very many equal repairs the first ones are named."""
    return [
        Change(kind, place, f"{count} x", kind)
        for kind, count in table.notes.counts.items()
        for place in table.notes.examples[kind]
    ]


def _changes(findings: Sequence[Finding]) -> list[Change]:
    return [Change(finding.kind, finding.place, finding.value, finding.fix) for finding in findings]


def _computed_areas(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    area = table.area.copy()
    for finding in findings:
        segmentation = table.segmentation[finding.row]
        width, height = table.boxes_xywh[finding.row, 2:].tolist()
        area[finding.row] = (
            width * height if segmentation is None else segmentation_area(segmentation, table.size_hw(finding.image))
        )
    return replace(table, area=area)


def _outline_boxes(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    boxes, area = table.boxes_xywh.copy(), table.area.copy()
    for finding in findings:
        segmentation = table.segmentation[finding.row]
        assert segmentation is not None  # the finding is about an outline
        size_hw = table.size_hw(finding.image)
        boxes[finding.row] = outline_box(segmentation, size_hw)
        area[finding.row] = segmentation_area(segmentation, size_hw)
    return replace(table, boxes_xywh=boxes, area=area)


def _without_objects(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    removed = {finding.row for finding in findings}
    ranges = [range(int(start), int(stop)) for start, stop in zip(table.start, table.stop, strict=True)]
    return _with_objects(table, [[row for row in rows if row not in removed] for rows in ranges])


def _joined_records(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    names = {finding.file for finding in findings}
    first_of: dict[str, int] = {}
    objects: dict[int, list[int]] = {}
    for row in range(len(table)):
        name = file_name(table, row)
        first = first_of.setdefault(name, row) if name in names else row
        objects.setdefault(first, []).extend(range(int(table.start[row]), int(table.stop[row])))
    kept = table.subset(list(objects))
    return _with_objects(kept, list(objects.values()))


def _merged_classes(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    mapping = {other: finding.names[0] for finding in findings for other in finding.names[1:]}
    return replace(rename_classes([table], mapping)[0], notes=table.notes)


def _without_classes(table: AnnotationTable, findings: Sequence[Finding]) -> AnnotationTable:
    removed = {name for finding in findings for name in finding.names}
    kept = [name for name in table.class_map.names if name not in removed]
    return replace(select_classes(table, kept), notes=table.notes)


_MEND = {
    COMPUTE_AREA: _computed_areas,
    BOX_OF_OUTLINE: _outline_boxes,
    REMOVE_OBJECT: _without_objects,
    JOIN_RECORDS: _joined_records,
    MERGE_CLASSES: _merged_classes,
    REMOVE_CLASS: _without_classes,
}


def _with_objects(table: AnnotationTable, objects: Sequence[Sequence[int]]) -> AnnotationTable:
    """The table whose images have the instances in these rows."""
    rows = np.array([row for of_image in objects for row in of_image], np.int64)
    offsets = starts(np.array([len(of_image) for of_image in objects], np.int64))
    columns: dict[str, Any] = {name: getattr(table, name)[rows] for name in INSTANCE_COLUMNS}
    return replace(
        table,
        **columns,
        start=offsets[:-1],
        stop=offsets[1:],
        segmentation=table.segmentation.take(rows),
        keypoints=None if table.keypoints is None else table.keypoints[rows],
    )
