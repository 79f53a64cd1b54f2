"""Estimate which share of a run is done and the time that is left, from the measured time of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any


class RunProgress:
    """The parts of a run: units (batches, images) that are left of each, and the seconds of those that are done.

    The time between two calls belongs to the part that they are about, so that waiting for data, metrics and
    checkpoints count. It is used by the bars of a reporter; see :meth:`~detseg.runtime.reporter.Reporter.whole_run`.
    """

    def __init__(self, *, may_stop_early: bool = False) -> None:
        self.may_stop_early = may_stop_early
        self._left: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._is_expected, self._share = False, 0.0
        self._last, self._time = "", monotonic()

    def expect(self, units: Mapping[str, int]) -> None:
        """Set the units that are left of each part of the run; other parts are added when they begin."""
        self._left, self._is_expected = dict(units), True

    def begin(self, part: str, units: int) -> None:
        """A loop over ``units`` of a part begins."""
        self._measure(self._last)
        self._last = part
        self._left[part] = max(self._left.get(part, 0), units)

    def advance(self, part: str, units: int) -> None:
        """Some more units of a part are done."""
        self._measure(part)
        self._last = part
        self._done[part] = self._done.get(part, 0) + units
        self._left[part] = max(self._left.get(part, 0) - units, 0)

    def end(self, part: str, units: int) -> None:
        """A loop ends; ``units`` of it were not needed."""
        self._left[part] = max(self._left.get(part, 0) - max(units, 0), 0)

    def state(self) -> dict[str, Any]:
        """Return ``share`` (in [0, 1], never decreasing), ``seconds_left`` (None until something is measured), and
        ``bound``: "at least" while parts are not measured, "at most" if the run may stop early, else ""."""
        rates = {part: self._seconds.get(part, 0.0) / units for part, units in self._done.items() if units}
        left = {part: units for part, units in self._left.items() if units}
        measured = sum(units * rates[part] for part, units in left.items() if part in rates)
        unknown = sum(units for part, units in left.items() if part not in rates)
        spent, mean = sum(self._seconds.values()), sum(rates.values()) / max(len(rates), 1)
        if self._is_expected and spent:
            self._share = max(self._share, min(spent / (spent + measured + unknown * mean), 1.0))
        is_open = unknown > 0 or not self._is_expected
        bound = "about" if is_open and self.may_stop_early else "at least" if is_open else ""
        return {
            "share": self._share,
            "seconds_left": measured if rates else None,
            "bound": bound or ("at most" if self.may_stop_early else ""),
        }

    def _measure(self, part: str) -> None:
        now = monotonic()
        if part:
            self._seconds[part] = self._seconds.get(part, 0.0) + now - self._time
        self._time = now
