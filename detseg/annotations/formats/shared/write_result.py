"""Result of writing a table in some format."""

from __future__ import annotations

from dataclasses import dataclass

from detseg.annotations.repair_log import RepairLog


@dataclass(frozen=True)
class WriteResult:
    """Image paths of a written table, and the notes of what could not be written.

    Attributes:
        images: for each image of the table, the path to copy it to, relative to the written folder, with forward
            slashes.
        notes: what the format cannot store, counted, with the first few examples.
    """

    images: list[str]
    notes: RepairLog
