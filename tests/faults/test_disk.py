"""Disk full, quota, I/O error, read-only: the last good checkpoint stays, one line says so. R5: 4 errors, 15 places."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import detseg.checkpoints.manager as manager
import detseg.runtime.files as files
from detseg.checkpoints.rotation import latest_checkpoint
from tests.faults.conftest import Events, Runs

ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS")}
PLACES = 15
EVERY = ("--checkpoint-every", "2")


def failing(first: int, last: float, number: int, log: Path | None = None) -> Callable[[], None]:
    """File operations ``first`` to ``last`` fail with this error: temporary file, write, fsync, replace."""

    def before() -> None:
        events = Events(log)

        def event(name: str) -> None:
            if first <= events.number(name) <= last:
                raise OSError(number, os.strerror(number))

        def checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                event(name)
                return function(*given, **named)

            return call

        manager.PAUSES = (0.01, 0.01, 0.01)
        files.tempfile.mkstemp = checked(files.tempfile.mkstemp, "create")  # type: ignore[assignment]
        files.os.fsync = checked(files.os.fsync, "fsync")  # type: ignore[attr-defined]
        Path.replace = checked(Path.replace, "replace")  # type: ignore[assignment,method-assign]

    return before


def survives(runs: Runs, run: Path, before: Callable[[], None]) -> bool:
    """Whether the run ends well in spite of the error, or ends with code 1 and can be gone on with; equal both ways."""
    code = runs.begin(run, *EVERY, before=before)
    if code == 1:
        if (run / "config.toml").exists():
            latest_checkpoint(run)  # nothing of it is corrupt
            assert not list(run.glob("*.damaged"))
        code = runs.go_on(run)
    return code == 0 and runs.ends_equal(run)


def events_of(runs: Runs, folder: Path) -> int:
    log = folder.parent / "events"
    assert runs.begin(folder, *EVERY, before=failing(0, 0, errno.EIO, log)) == 0
    return len(log.read_text().splitlines())


def places(runs: Runs, folder: Path, count: int) -> list[int]:
    return [int(place) for place in np.linspace(1, events_of(runs, folder), count)]


def test_some_places(runs: Runs, tmp_path: Path) -> None:
    for place, name in zip(places(runs, tmp_path / "events-run", 5)[1:3], ERRORS, strict=False):
        assert survives(runs, tmp_path / f"run-{place}", failing(place, place, ERRORS[name]))


@pytest.mark.faults
@pytest.mark.parametrize("name", ERRORS)
def test_15_places(name: str, runs: Runs, tmp_path: Path, tally: Any) -> None:
    chosen = places(runs, tmp_path / "events-run", PLACES)
    assert len(set(chosen)) == PLACES
    lost = [p for p in chosen if not survives(runs, tmp_path / f"run-{p}", failing(p, p, ERRORS[name]))]
    print(f"lost: {lost}")
    tally("R5 disk full, quota, I/O error, read-only", PLACES - len(lost), PLACES)


@pytest.mark.slow
def test_a_disk_that_stays_full(runs: Runs, tmp_path: Path) -> None:
    """From the middle on nothing can be written: the run says so, ends with code 1, and goes on when there is room."""
    middle = events_of(runs, tmp_path / "events-run") // 2
    run = tmp_path / "run"
    assert runs.begin(run, *EVERY, before=failing(middle, float("inf"), errno.ENOSPC)) == 1
    checkpoint, lines = latest_checkpoint(run)
    assert checkpoint is not None
    assert lines == []
    assert not list(run.glob(".*.tmp")), "nothing is left landscape about"
    assert runs.go_on(run) == 0
    assert runs.ends_equal(run)


def test_control_a_plain_writer_leaves_a_torn_file(runs: Runs, tmp_path: Path) -> None:
    """As ``torch.save(path)`` does it: opened for writing, emptied, and then the disk is full."""

    def plain() -> None:
        def broken(path: Any, *, before_replacing: Any = None) -> Any:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        import detseg.checkpoints.tensor_file as tensor_file_module

        manager.PAUSES = ()
        tensor_file_module.atomic_write = broken

    run = tmp_path / "run"
    assert runs.begin(run, *EVERY, before=plain) == 1
    with pytest.raises(ValueError, match="no checkpoint of this run can be read"):
        latest_checkpoint(run)
