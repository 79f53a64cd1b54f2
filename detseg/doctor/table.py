"""Find problems in the columns of a table, without opening files."""

from __future__ import annotations

from detseg.annotations.groups import file_name
from detseg.annotations.instance_name import instance_name
from detseg.annotations.obstacles import nothing_to_learn
from detseg.annotations.table import AnnotationTable
from detseg.doctor.class_names import inspect_classes
from detseg.doctor.findings import Finding
from detseg.doctor.objects import inspect_objects
from detseg.doctor.splits import inspect_split


def inspect_table(table: AnnotationTable) -> list[Finding]:
    """Find what makes training impossible, files annotated under several image ids, and suspicious instances, masks,
    class names and sizes."""
    return [
        *_nothing_to_learn(table),
        *inspect_split(table),
        *_repeated_files(table),
        *inspect_objects(table),
        *_missing_masks(table),
        *inspect_classes(table),
    ]


def _nothing_to_learn(table: AnnotationTable) -> list[Finding]:
    message = nothing_to_learn(table) if len(table) else ""  # without images, the split says so
    return [Finding("nothing to learn", table.source, message, "error")] if message else []


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
    findings = []
    for row in without_mask.tolist():
        place = instance_name(table, row)
        findings.append(
            Finding(
                "instance without a mask",
                place,
                f"{place}: {len(rows) - len(without_mask)} of {len(rows)} instances have a mask, this one has none, so "
                "only boxes can be trained on this data: add its mask, or remove it",
            )
        )
    return findings
