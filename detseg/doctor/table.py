"""Find problems in the columns of a table, without opening files."""

from __future__ import annotations

from detseg.annotations.groups import file_name
from detseg.annotations.obstacles import nothing_to_learn
from detseg.annotations.table import AnnotationTable
from detseg.doctor.class_balance import inspect_balance
from detseg.doctor.class_names import inspect_classes
from detseg.doctor.findings import JOIN_RECORDS, Finding, kind_lines
from detseg.doctor.objects import inspect_masks, inspect_objects
from detseg.doctor.reader_notes import inspect_notes
from detseg.doctor.rounding import inspect_rounding
from detseg.doctor.splits import inspect_split

MOST_LINES = 5
"""Kinds of findings that ``train`` prints at its start."""


def inspect_table(table: AnnotationTable, image_size: int | None = None) -> list[Finding]:
    """Find what makes training impossible, files annotated under several image ids, and suspicious instances, masks,
    class names and sizes.

    Args:
        image_size: input size, the shorter side in pixels, for what is too small at it; None for the default of a CPU.
    """
    return [
        *_nothing_to_learn(table),
        *inspect_split(table, image_size),
        *inspect_notes(table),
        *_repeated_files(table),
        *inspect_objects(table),
        *inspect_masks(table),
        *inspect_classes(table),
        *inspect_balance(table),
        *inspect_rounding(table),
    ]


def quick_findings(table: AnnotationTable) -> list[Finding]:
    """What ``train`` looks for before it begins: the checks that need neither files nor outlines, in seconds even for
    a million objects. What makes training impossible is an error there anyway, and is not repeated."""
    return [
        *inspect_notes(table),
        *_repeated_files(table),
        *inspect_objects(table, outlines=False),
        *inspect_classes(table),
        *inspect_balance(table),
        *inspect_rounding(table),
    ]


def check_lines(table: AnnotationTable) -> list[str]:
    """A few lines for the start of a training: the first kinds of ``quick_findings``, and where all are listed."""
    lines = [f"  {line}" for line in kind_lines(quick_findings(table))]
    if not lines:
        return []
    more = f"  {len(lines) - MOST_LINES} more kinds" if len(lines) > MOST_LINES else ""
    hint = "  detseg inspect checks the images, too, and lists all; --no-check omits these lines"
    return [*lines[:MOST_LINES], *filter(None, [more]), hint]


def _nothing_to_learn(table: AnnotationTable) -> list[Finding]:
    message = nothing_to_learn(table) if len(table) else ""  # without images, the split says so
    return [Finding.of_text("error", "nothing to learn", table.source, message)] if message else []


def _repeated_files(table: AnnotationTable) -> list[Finding]:
    if len(set(table.media.tolist())) == len(table):
        return []
    rows_of: dict[str, list[int]] = {}
    for row in range(len(table)):
        if str(table.media[row]):
            rows_of.setdefault(file_name(table, row), []).append(row)
    return [
        Finding(
            "warning",
            "repeated file",
            name,
            f"annotated {len(rows)} times, as image ids {', '.join(str(table.image_id[row]) for row in rows)}",
            "put all its instances under one image id",
            fix=JOIN_RECORDS,
            image=rows[0],
        )
        for name, rows in rows_of.items()
        if len(rows) > 1
    ]
