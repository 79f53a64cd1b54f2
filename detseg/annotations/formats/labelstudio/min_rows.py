"""Read the rows of Label Studio's JSON-MIN: the controls and the data of a task side by side, without types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from detseg.annotations.formats.labelstudio.results import Region, Value
from detseg.annotations.formats.shared.lenient_json import Mender
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.listing import is_image
from detseg.annotations.repair_log import RepairLog

_OF_THE_ROW = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
_SHAPE_KEYS = ("x", "points", "rle")


@dataclass(frozen=True)
class MinRow:
    """One annotation: the task and position, its regions, the texts that may be choices, and the data of the task."""

    task: Any
    where: str
    updated_at: str
    regions: list[Region]
    fields: dict[str, tuple[str, ...]]
    data: dict[str, Any]


def min_rows(rows: Sequence[dict[str, Any]], file: str, notes: RepairLog, problems: Problems) -> Iterator[MinRow]:
    """The rows of a file; problems of regions are collected."""
    for number, row in enumerate(rows, 1):
        task = row.get("id")
        where = f"{file}, task {task if isinstance(task, (int, str)) else number}"
        regions: list[Region] = []
        fields: dict[str, tuple[str, ...]] = {}
        for key, value in row.items():
            if key in _OF_THE_ROW:
                continue
            if isinstance(value, list) and any(isinstance(item, dict) for item in value):
                with problems.collect():
                    regions += _regions(value, f"{where}, {key}", notes)
            elif isinstance(value, str) and value.strip() and not is_image(value) and "://" not in value:
                fields[key] = (value.strip(),)
            elif isinstance(value, dict) and isinstance(value.get("choices"), list):
                fields[key] = tuple(str(choice).strip() for choice in value["choices"])
        data = {key: value for key, value in row.items() if key not in _OF_THE_ROW}
        yield MinRow(
            task if isinstance(task, (int, str)) else ("row", number), where, str(row.get("updated_at") or ""),
            regions, fields, data,
        )  # fmt: skip


def _regions(items: Sequence[Any], where: str, notes: RepairLog) -> list[Region]:
    """The shapes of one control."""
    regions = []
    for number, item in enumerate(items, 1):
        if isinstance(item, dict) and any(key in item for key in _SHAPE_KEYS):
            mender = Mender(f"{where}, region {number}")
            value = msgspec.convert(mender.mend(item, Value), Value, strict=False)
            size = msgspec.convert(mender.mend(item, _Size), _Size, strict=False)
            notes.merge(mender.notes)
            regions.append(Region(value, "", None, "", None, size.original_width, size.original_height))
    return regions


class _Size(msgspec.Struct):
    original_width: float | None = None
    original_height: float | None = None
