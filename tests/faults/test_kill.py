"""Runs that are killed at any time and resumed end with identical files. R1 of the scorecard, 200 times."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detseg.runtime.files as files
from tests.faults.conftest import Events, Runs, kill_process

EVERY = ("--checkpoint-every", "2")
PLACED, TIMED = 100, 100
QUICK = 1


def at_event(number: int, log: Path | None = None) -> Callable[[], None]:
    """Kill the process at event ``number``: a file is opened, half written, synced, linked, or replaced."""

    def before() -> None:
        events = Events(log)

        def event(name: str) -> bool:
            return events.number(name) == number

        fdopen, fsync, link, replace = os.fdopen, os.fsync, os.link, Path.replace

        class InterruptibleFile:
            """A file whose process can be killed in the middle of a write."""

            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __enter__(self) -> InterruptibleFile:
                return self

            def __exit__(self, *error: object) -> None:
                self.inner.close()

            def write(self, data: bytes) -> int:
                if event("half written"):
                    self.inner.write(data[: len(data) // 2])
                    self.inner.flush()
                    kill_process()
                return int(self.inner.write(data))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.inner, name)

        def open_file(*args: Any) -> Any:
            if event("opened"):
                kill_process()
            return InterruptibleFile(fdopen(*args))

        def around(function: Callable[..., Any], name: str) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                if event(f"before {name}"):
                    kill_process()
                result = function(*args)
                if event(f"after {name}"):
                    kill_process()
                return result

            return call

        files.os.fdopen = open_file  # type: ignore[attr-defined]
        files.os.fsync = around(fsync, "fsync")  # type: ignore[attr-defined]
        os.link = around(link, "link")  # type: ignore[assignment]
        Path.replace = around(replace, "replace")  # type: ignore[assignment,method-assign]

    return before


def after(seconds: float) -> Callable[[], None]:
    """Kill the process after ``seconds``."""

    def before() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process like SIGKILL: no handler, no clean-up
        signal.setitimer(signal.ITIMER_REAL, seconds)

    return before


def survives(runs: Runs, folder: Path, before: Callable[[], None], kills: int = 1) -> bool:
    """Whether a run that is killed ``kills`` times at this event can be resumed and ends equal."""
    shutil.rmtree(folder, ignore_errors=True)
    code = runs.start(folder, *EVERY, before=before)
    for _ in range(kills - 1):
        code = code and runs.resume(folder, before=before)
    return (code == 0 or runs.resume(folder) == 0) and runs.ends_equal(folder)


def count_events(runs: Runs, folder: Path) -> int:
    log = folder.parent / "events"
    assert runs.start(folder, *EVERY, before=at_event(0, log)) == 0
    return len(log.read_text().splitlines())


def check(runs: Runs, folder: Path, placed: int, timed: int, tally: Any) -> None:
    count = count_events(runs, folder / "events-run")
    assert count > placed
    moments = {f"event {n}": at_event(n) for n in np.linspace(1, count, placed).astype(int).tolist()}
    start_time = time.perf_counter()
    assert survives(runs, folder / "run", lambda: None)
    length = time.perf_counter() - start_time
    times = np.random.default_rng(0).uniform(0, length, timed).tolist()
    moments |= {f"{seconds:.6f} s": after(seconds) for seconds in times}
    assert len(moments) == placed + timed
    lost = [name for name, before in moments.items() if not survives(runs, folder / "run", before)]
    print(f"lost: {lost}")
    tally("R1 killed at any time, resumed to identical files", len(moments) - len(lost), len(moments))


def test_some_moments(runs: Runs, tmp_path: Path, tally: Any) -> None:
    check(runs, tmp_path, QUICK, QUICK, tally)


@pytest.mark.faults
def test_200_moments(runs: Runs, tmp_path: Path, tally: Any) -> None:
    check(runs, tmp_path, PLACED, TIMED, tally)


def test_control_a_writer_that_is_not_atomic_loses_runs(runs: Runs, tmp_path: Path) -> None:
    """A file that is written in place is truncated if the process dies in the middle."""

    def in_place(before: Callable[[], None]) -> Callable[[], None]:
        def patch() -> None:
            files.tempfile.mkstemp = lambda dir, prefix, suffix: _open_in_place(dir, prefix)  # type: ignore[assignment]
            before()

        return patch

    count = count_events(runs, tmp_path / "events-run")
    moments = range(count // 2, count // 2 + 8)
    assert any(not survives(runs, tmp_path / "run", in_place(at_event(n))) for n in moments)


def _open_in_place(folder: Path, prefix: str) -> tuple[int, str]:
    path = str(Path(folder) / prefix.strip("."))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), path
