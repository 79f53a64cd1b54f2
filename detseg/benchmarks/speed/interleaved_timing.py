"""Time two implementations alternately, so that variance of a shared machine affects both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import torch

from detseg.runtime.reporter import progress


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
        name: the task, with its sizes.
        baseline: description of the baseline.
        ours, theirs: measurements of detseg and of the baseline, one per turn, in ``unit``; less is better.
        target: target of the ratio; None for none.
        note: further information: a checked equality, a limit.
        unit: of ``ours`` and ``theirs``.
    """

    name: str
    baseline: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    target: float | None = None
    note: str = ""
    unit: str = "s"

    @property
    def ratios(self) -> tuple[float, ...]:
        """Baseline divided by detseg, for each turn."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """Median over turns."""
        return statistics.median(self.ratios)

    def cells(self) -> list[str]:
        """Return name, ratio (lowest to highest turn), target, and the medians of both implementations."""
        low, high = min(self.ratios), max(self.ratios)
        target = "" if self.target is None else f"{self.target:g}"
        medians = (f"{statistics.median(values):.3g} {self.unit}" for values in (self.ours, self.theirs))
        return [self.name, f"{self.ratio:.2f} ({low:.2f} to {high:.2f})", target, *medians, self.baseline]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON."""
        return asdict(self) | {"ratio": self.ratio}


HEADER = ["", "ratio", "target", "detseg", "baseline", "baseline implementation"]


def time_interleaved(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    baseline: str,
    target: float | None = None,
    note: str = "",
    turns: int = 5,
) -> Comparison:
    """Time both once per turn, one after the other, after an untimed warm-up run of each."""
    ours()
    theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in progress(range(turns), name, unit="turn", leave=False):
        # the order alternates: the first of a pair may run on a cooler processor
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            times[side].append(seconds_of((ours, theirs)[side]))
    return Comparison(name, baseline, tuple(times[0]), tuple(times[1]), target, note)


def seconds_of(run: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def table(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """Return one row per comparison, with the columns of :data:`HEADER`."""
    return [comparison.cells() for comparison in comparisons]


@contextmanager
def one_core() -> Iterator[None]:
    """Limit torch and OpenCV to one thread in a ``with`` block."""
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
