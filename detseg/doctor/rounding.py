"""Find coordinates that were stored as 16-bit floating point numbers, which rounds those above 2,048."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding

EXACT = 2048
"""Above it a float16 cannot store all whole numbers: only even ones, above 4,096 only multiples of four."""

ENOUGH = 10
"""Numbers above the limit from which it is no chance (1 : 1,000) that all of them are such."""


def inspect_rounding(table: AnnotationTable) -> list[Finding]:
    """Find out whether all coordinates of boxes, or all image ids, are numbers that a float16 can store."""
    boxes = table.boxes_xywh[table.trained_rows()]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return [
        Finding(
            "warning",
            "rounded to float16",
            table.source,
            f"all {what} are numbers that a float16 can store, and {number} of them are above {EXACT}, where it stores "
            "only every second or fourth whole number: they were rounded",
            "write them again, as float32 or integers",
        )
        for what, numbers in (("corners of boxes", corners), ("image ids", table.image_id))
        if (number := _rounded(numbers))
    ]


def _rounded(numbers: npt.NDArray[np.float64 | np.int64]) -> int:
    """How many numbers are above ``EXACT``, if all are float16; else 0."""
    large = np.abs(numbers[np.abs(numbers) > EXACT]).astype(np.float64)
    if len(large) < ENOUGH:
        return 0
    with np.errstate(over="ignore"):
        stored = numbers.astype(np.float16).astype(np.float64)
    return len(large) if (np.abs(stored - numbers) <= 1e-9 * np.abs(numbers)).all() else 0
