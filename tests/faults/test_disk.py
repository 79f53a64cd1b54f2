"""Disk full, quota, I/O error, read-only: the last valid checkpoint stays, one warning. R5: 4 errors, 15 operations."""

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
OPERATIONS = 15
EVERY = ("--checkpoint-every", "2")


def failing(first: int, last: float, number: int, log: Path | None = None) -> Callable[[], None]:
    """Make the file operations ``first`` to ``last`` (create, fsync, replace) fail with error ``number``."""

    def before() -> None:
        events = Events(log)

        def event(name: str) -> None:
            if first <= events.number(name) <= last:
                raise OSError(number, os.strerror(number))

        def checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                event(name)
                return function(*args, **kwargs)

            return call

        manager.PAUSES = (0.01, 0.01, 0.01)
        files.tempfile.mkstemp = checked(files.tempfile.mkstemp, "create")  # type: ignore[assignment]
        files.os.fsync = checked(files.os.fsync, "fsync")  # type: ignore[attr-defined]
        Path.replace = checked(Path.replace, "replace")  # type: ignore[assignment,method-assign]

    return before


def survives(runs: Runs, run: Path, before: Callable[[], None]) -> bool:
    """Whether the run succeeds despite the error, or exits with code 1 and can be resumed; the files must be equal."""
    code = runs.start(run, *EVERY, before=before)
    if code == 1:
        if (run / "config.toml").exists():
            latest_checkpoint(run)  # raises if it is corrupt
            assert not list(run.glob("*.damaged"))
        code = runs.resume(run)
    return code == 0 and runs.ends_equal(run)


def count_operations(runs: Runs, folder: Path) -> int:
    log = folder.parent / "events"
    assert runs.start(folder, *EVERY, before=failing(0, 0, errno.EIO, log)) == 0
    return len(log.read_text().splitlines())


def spaced_operations(runs: Runs, folder: Path, count: int) -> list[int]:
    """Numbers of ``count`` file operations, evenly spaced over a run."""
    return [int(number) for number in np.linspace(1, count_operations(runs, folder), count)]


def test_some_operations(runs: Runs, tmp_path: Path) -> None:
    for number, name in zip(spaced_operations(runs, tmp_path / "events-run", 5)[1:3], ERRORS, strict=False):
        assert survives(runs, tmp_path / f"run-{number}", failing(number, number, ERRORS[name]))


@pytest.mark.faults
@pytest.mark.parametrize("name", ERRORS)
def test_15_operations(name: str, runs: Runs, tmp_path: Path, tally: Any) -> None:
    numbers = spaced_operations(runs, tmp_path / "events-run", OPERATIONS)
    assert len(set(numbers)) == OPERATIONS
    lost = [n for n in numbers if not survives(runs, tmp_path / f"run-{n}", failing(n, n, ERRORS[name]))]
    print(f"lost: {lost}")
    tally("R5 disk full, quota, I/O error, read-only", OPERATIONS - len(lost), OPERATIONS)


@pytest.mark.slow
def test_a_disk_that_stays_full(runs: Runs, tmp_path: Path) -> None:
    """From the middle of the run, nothing can be written: it exits with code 1, and can be resumed later."""
    middle = count_operations(runs, tmp_path / "events-run") // 2
    run = tmp_path / "run"
    assert runs.start(run, *EVERY, before=failing(middle, float("inf"), errno.ENOSPC)) == 1
    checkpoint, lines = latest_checkpoint(run)
    assert checkpoint is not None
    assert lines == []
    assert not list(run.glob(".*.tmp")), "temporary files are removed"
    assert runs.resume(run) == 0
    assert runs.ends_equal(run)


def test_control_a_writer_that_is_not_atomic_corrupts_the_file(runs: Runs, tmp_path: Path) -> None:
    """As with ``torch.save(path)``: the file is opened and truncated, and then the disk is full."""

    def use_direct_writer() -> None:
        def write_half(path: Any, content: bytes, *, before_replacing: Any = None) -> Any:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        import detseg.checkpoints.tensor_file as tensor_file_module

        manager.PAUSES = ()
        tensor_file_module.write_bytes = write_half

    run = tmp_path / "run"
    assert runs.start(run, *EVERY, before=use_direct_writer) == 1
    with pytest.raises(ValueError, match="no checkpoint of this run can be read"):
        latest_checkpoint(run)
