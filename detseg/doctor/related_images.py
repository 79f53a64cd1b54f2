"""Group images that must not be divided among splits: near-duplicates, frames of one video, copies by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name, group_rows
from detseg.annotations.table import AnnotationTable
from detseg.doctor.near_duplicates import NearDuplicates, previous_in_sequence

LEAST_FRAMES = 10
"""Images of a numbered sequence from which it may be a video."""

LEAST_CHAINED = 0.5
"""Share of neighbours in a numbered sequence that show the same view, from which it is a video: also the frames where
everything moved belong to it."""

_ROBOFLOW_COPY = re.compile(r"(?P<original>[^/]+)\.rf\.[0-9A-Za-z]{20,}\.[A-Za-z]+$")


def with_related_groups(table: AnnotationTable, near: NearDuplicates) -> AnnotationTable:
    """``table`` with its ``group`` column filled in, by the file name of the first image of a group.

    One group are: the images of a group of the source, near-duplicates, frames of one video file, a numbered sequence
    whose neighbours show the same view, and the augmented copies of one original in a Roboflow export
    (``NAME.rf.<random>.jpg``). Groups that share an image are one group.

    Args:
        near: near-duplicates of the same table.
    """
    parts = [
        near.group.tolist(),
        _by(table.group.tolist()),
        _by(name if frame >= 0 else "" for name, frame in zip(table.media.tolist(), table.frame.tolist(), strict=True)),
        _by(_original(name) for name in table.media.tolist()),
        _videos(previous_in_sequence(table.media.tolist()), near.group),
    ]
    group = _joined(parts, len(table))
    sizes = np.bincount(group, minlength=len(table))
    names = [file_name(table, first) if sizes[first] > 1 else "" for first in group.tolist()]
    column: Any = np.array(names, dtype=np.dtypes.StringDType())
    return replace(table, group=column)


def with_large_groups_cut(table: AnnotationTable, largest: int) -> tuple[AnnotationTable, int]:
    """Cut each group of more than ``largest`` images into runs of neighbours by name, such as the parts of one long
    video, so that only the ends of the runs are alike. Returns the table and the number of groups that were cut."""
    names = table.group.tolist()
    large = [rows for rows in group_rows(table) if len(rows) > largest]
    for rows in large:
        ordered = sorted(rows.tolist(), key=lambda row: (_natural(str(table.media[row])), int(table.frame[row])))
        for number, run in enumerate(np.array_split(ordered, -(-len(rows) // largest))):
            for row in run.tolist():
                names[row] = f"{names[row]} (part {number + 1})"
    column: Any = np.array(names, dtype=np.dtypes.StringDType())
    return replace(table, group=column), len(large)


def _by(names: Iterable[str]) -> list[int]:
    """For each name the index of the first equal one; an empty name is equal to no other."""
    first: dict[str, int] = {}
    return [first.setdefault(name, row) if name else row for row, name in enumerate(names)]


def _original(name: str) -> str:
    """The path of the image that Roboflow has augmented, without its split folder; "" for other names."""
    match = _ROBOFLOW_COPY.search(name)
    return match["original"] if match else ""


def _videos(previous: Mapping[int, int], group: npt.NDArray[np.int64]) -> list[int]:
    """For each row the first one of its video, for those in a numbered sequence that is one."""
    first_of = list(range(len(group)))
    followers = {before: row for row, before in previous.items()}
    for start in sorted(set(followers) - set(previous)):
        rows = [start]
        while rows[-1] in followers:
            rows.append(followers[rows[-1]])
        chained = np.mean(group[rows[1:]] == group[rows[:-1]])
        if len(rows) >= LEAST_FRAMES and chained >= LEAST_CHAINED:
            for row in rows:
                first_of[row] = min(rows)
    return first_of


def _joined(parts: list[list[int]], count: int) -> npt.NDArray[np.int64]:
    """int64 [N]: the first row of each group, where rows that any of ``parts`` groups are together."""
    root = list(range(count))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for part in parts:
        for row, other in enumerate(part):
            low, high = sorted((find(row), find(other)))
            root[high] = low
    return np.array([find(row) for row in range(count)], np.int64)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts ``frame_9`` before ``frame_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]{1,18})", name)]
