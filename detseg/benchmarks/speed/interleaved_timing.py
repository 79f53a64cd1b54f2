"""Two ways to the same thing, timed in turn: what a shared machine does to one, it does to the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import torch
from tqdm import tqdm


@dataclass(frozen=True)
class Comparison:
    """One row of the table.

    Attributes:
        name: what is done, with its sizes.
        baseline: the baseline that it is compared with.
        ours, theirs: seconds (or another ``unit``, of which less is better) of each turn.
        target: the ratio that is wanted; None where there is none.
        note: what else a reader must know: an equality that was checked, a limit.
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
        """How many times as much the baseline takes, in each turn."""
        return tuple(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))

    @property
    def ratio(self) -> float:
        """Median over turns."""
        return statistics.median(self.ratios)

    def cells(self) -> list[str]:
        """Name, ratio (lowest to highest turn), target, medians of both ways."""
        low, high = min(self.ratios), max(self.ratios)
        wanted = "" if self.target is None else f"{self.target:g}"
        medians = (f"{statistics.median(values):.3g} {self.unit}" for values in (self.ours, self.theirs))
        return [self.name, f"{self.ratio:.2f} ({low:.2f} to {high:.2f})", wanted, *medians, self.baseline]

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self) | {"ratio": self.ratio}


HEADER = ["", "ratio", "wanted", "detseg", "baseline", "the baseline is"]


def in_turn(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    baseline: str,
    target: float | None = None,
    note: str = "",
    turns: int = 5,
) -> Comparison:
    """Time both once for each turn, one after the other, after one run of each that does not count."""
    ours()
    theirs()
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in tqdm(range(turns), desc=name, unit="turn", disable=None, leave=False):
        # who goes first alternates: the first of a pair may find a cooler processor
        for way in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[way].append(seconds_of((ours, theirs)[way]))
    return Comparison(name, baseline, tuple(taken[0]), tuple(taken[1]), target, note)


def seconds_of(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def table(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """A row for each comparison, below :data:`HEADER`."""
    return [comparison.cells() for comparison in comparisons]


@contextmanager
def one_core() -> Iterator[None]:
    """torch and OpenCV on one thread, for a ``with`` block."""
    threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv2_threads)
