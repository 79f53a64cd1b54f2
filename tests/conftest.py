"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker a core: more threads would only wait for each other

SHARED_DATA = Path(os.environ.get("DETSEG_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it are skipped where it is not present."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data not present at {SHARED_DATA}; set DETSEG_SHARED_DATA to its folder")
    return SHARED_DATA.resolve()


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, int, int], None]:
    """``tally(name, good, total)``: a line of the score that the test session prints at its end. All must be good."""

    def count(name: str, good: int, total: int) -> None:
        record_property("tally", (name, good, total))
        assert good == total

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The score of the fault tests: how many of each kind ended well, of how many (see ``tally``)."""
    score: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ():
                if name == "tally":
                    score[value[0]][0] += value[1]
                    score[value[0]][1] += value[2]
    if score:
        terminalreporter.section("faults")
        for name in sorted(score):
            terminalreporter.write_line(f"{name:60} {score[name][0]:4} of {score[name][1]:4}")
