"""Group images that belong together: frames of one video, tiles of one slide, photos of one patient."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import NAMED, RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def file_name(table: AnnotationTable, row: int) -> str:
    """The path of an image relative to the table's root; a member, or a frame in the file, follows after a colon."""
    if table.has_path(row):
        return str(table.media[row])
    inside = str(table.member[row]) or (f"frame {table.frame[row]}" if table.frame[row] >= 0 else "")
    return f"{table.media[row]}:{inside}" if inside else str(table.media[row])


def with_groups(table: AnnotationTable, groups: str | Path) -> AnnotationTable:
    """``table`` with its ``group`` column filled in.

    Args:
        table: any table.
        groups: a CSV file of ``file,group`` (file as the path relative to the data folder, or the file name only), or a
            regular expression that is searched in each file name and whose first capture group is the group; a
            pattern with a slash is searched in the path relative to the data folder. An image that does not match
            forms a separate group.

    Raises:
        DataError: no image matches, an image is missing in the CSV file, or the pattern has no capture group.
    """
    text = str(groups)
    names = _from_csv(table, Path(text)) if text.lower().endswith(".csv") else _from_pattern(table, text)
    column: Any = np.array(names, dtype=np.dtypes.StringDType())
    return replace(table, group=column)


def group_rows(table: AnnotationTable) -> list[npt.NDArray[np.int64]]:
    """The rows of each group in order of first appearance; an image without a group forms a separate group."""
    rows_of: dict[str | int, list[int]] = {}
    for row, name in enumerate(table.group.tolist()):
        rows_of.setdefault(name or row, []).append(row)
    return [np.array(rows, np.int64) for rows in rows_of.values()]


def with_notes(table: AnnotationTable, kind: str, locations: list[str]) -> AnnotationTable:
    """Copy of ``table`` whose notes also have an entry of ``kind`` for each of ``locations``."""
    notes = RepairLog()
    notes.merge(table.notes)
    for location in locations:
        notes.add(kind, location)
    return replace(table, notes=notes)


def first_names(names: list[str]) -> str:
    """The first five names, comma separated, for a message."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _from_pattern(table: AnnotationTable, text: str) -> list[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(
            f"--group {text}: not a regular expression ({error}), and not the name of a .csv file"
        ) from None
    if not pattern.groups:
        raise DataError(
            f"--group {text}: put parentheses around the part that is the group name, such as '^(.*)_[0-9]+'"
        )
    files = [file_name(table, row) for row in range(len(table))]
    if "/" not in text:
        files = [file.rsplit("/", 1)[-1] for file in files]
    matches = [pattern.search(file) for file in files]
    names = [match[1] or "" if match else "" for match in matches]
    if not any(names):
        raise DataError(f"--group {text}: no file name matches; the first ones are {first_names(files)}")
    return names


def _from_csv(table: AnnotationTable, path: Path) -> list[str]:
    groups: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or (number == 1 and [cell.strip().lower() for cell in row] == ["file", "group"]):
                continue
            if len(row) != 2 or not row[1].strip():
                raise DataError(f"{path}, line {number}: {','.join(row)!r} is not file,group; correct this line")
            name = row[0].strip().replace("\\", "/")
            if groups.setdefault(name, row[1].strip()) != row[1].strip():
                raise DataError(
                    f"{path}, line {number}: {name} is already in group {groups[name]}; keep only one of these lines"
                )
    files = [file_name(table, row) for row in range(len(table))]
    names = [groups.get(file) or groups.get(file.rsplit("/", 1)[-1], "") for file in files]
    missing = [file for file, name in zip(files, names, strict=True) if not name]
    if missing:
        raise DataError(f"{path}: {len(missing)} images have no group: {first_names(missing)}; add a line for each")
    return names
