"""Report near-duplicates: in two splits of the source, scores are too high; else ``train`` keeps them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding
from detseg.doctor.image_facts import ImageFacts, digests
from detseg.doctor.image_hash import SIDE
from detseg.doctor.near_duplicates import Thumbnails, near_duplicates
from detseg.short_text import counted


def similar_images(table: AnnotationTable, facts: Sequence[ImageFacts]) -> list[Finding]:
    """A warning for each group of near-duplicates that is in two splits of the source, and a note about the others.

    Groups of equal files are left out: other findings are about them.
    """
    digest_of = digests(facts)
    warnings, others = [], []
    for rows in near_duplicates(table, _row_thumbnails(table, facts)).groups():
        if len({digest_of.get(table[row].path, b"") for row in rows.tolist()}) < 2:
            continue
        first_of: dict[str, int] = {}
        for row in rows.tolist():
            first_of.setdefault(str(table.split[row]), row)
        if len(first_of) > 1:
            warnings.append(_warning(table, list(first_of.values())[:2], len(rows) - 2))
        else:
            others.append(rows)
    return [*warnings, *([_note(table, others)] if others else [])]


def _warning(table: AnnotationTable, pair: Sequence[int], more: int) -> Finding:
    first, second = pair
    text = f"it shows the same as {table.split[second]}: {file_name(table, second)}" + (
        f" and {more} more" if more else ""
    )
    return Finding(
        "warning",
        "near-duplicates in two splits",
        f"{table.split[first]}: {file_name(table, first)}",
        f"{text}: an image used for training is also evaluated, so scores are too high",
        "remove one, or train with --group auto, which splits the data without them",
        image=first,
    )


def _note(table: AnnotationTable, groups: Sequence[npt.NDArray[np.int64]]) -> Finding:
    first, second = groups[0][:2].tolist()
    images = counted(sum(map(len, groups)), "image")
    return Finding(
        "note",
        "near-duplicates",
        file_name(table, first),
        f"it shows the same as {file_name(table, second)}; in all {counted(len(groups), 'group')} of {images}, each in "
        "one split, where train keeps it",
        image=first,
    )


def _row_thumbnails(table: AnnotationTable, facts: Sequence[ImageFacts]) -> Thumbnails:
    """uint8 [I, 32, 32]: the thumbnail of each row by its file; 0 for a file without any."""
    by_path = {each.path: each.thumbnail for each in facts if each.thumbnail is not None}
    blank = np.zeros((SIDE, SIDE), np.uint8)
    rows = [by_path.get(record.path, blank) for record in table]
    return np.array(rows, np.uint8).reshape(-1, SIDE, SIDE)
