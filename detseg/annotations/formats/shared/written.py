"""What a writer of a format made, and what it could not write."""

from __future__ import annotations

from dataclasses import dataclass

from detseg.annotations.repair_log import RepairLog


@dataclass(frozen=True)
class Written:
    """The result of writing a table in some format.

    Attributes:
        images: for each image of the table, where below the written folder its image has to lie, with forward
            slashes.
        notes: what the format cannot hold, counted, the first few named.
    """

    images: list[str]
    notes: RepairLog
