"""SIGTERM and SIGINT to the process group in every phase: checkpoint saved, exit code 75, resumed to equal files.

R4 of the scorecard: 5 phases x {0, 4} workers x 10 moments.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import detseg.checkpoints.tensor_file as tensor_file_module
import detseg.datasets.loader as loader_module
import detseg.engine.update as update_module
from detseg.datasets import Dataset
from detseg.metrics import ClassificationEvaluator
from detseg.runtime.signals import EXIT_CODE
from tests.faults.conftest import Runs

PHASES = ("first batch", "step", "data wait", "evaluation", "saving")
MOMENTS = 10


def group_signal(number: int) -> None:
    os.killpg(os.getpgrp(), number)


def signalled_in(phase: str, moment: int, number: int = signal.SIGTERM) -> Callable[[], None]:
    """Start a process group, and signal it at the n-th moment of a phase."""

    def before() -> None:
        os.setpgid(0, 0)
        main, calls = os.getpid(), 0

        def is_time(call: int) -> bool:
            nonlocal calls
            calls += 1
            return calls >= call and bool(_read(once))

        once, token = os.pipe()  # each worker has its own count, but only one of them sends the signal
        os.set_blocking(once, False)
        os.write(token, b"1")
        if phase in ("first batch", "step"):
            call, original_to_device = 1 if phase == "first batch" else 2 + moment, update_module.to_device

            def to_device(*args: Any) -> Any:
                if is_time(call):
                    group_signal(number)
                return original_to_device(*args)

            update_module.to_device = to_device
        elif phase == "data wait":
            item = Dataset.__getitem__

            def slow(self: Dataset, key: Any) -> Any:
                if is_time(3 + moment if os.getpid() == main else 1 + moment // 4):
                    group_signal(number)
                    time.sleep(0.05)
                return item(self, key)

            Dataset.__getitem__ = slow  # type: ignore[method-assign]
        elif phase == "evaluation":
            update = ClassificationEvaluator.update

            def updated(self: Any, *args: Any) -> None:
                if is_time(1 + moment % 6):
                    group_signal(number)
                update(self, *args)

            ClassificationEvaluator.update = updated  # type: ignore[method-assign]
        else:
            original_fill_checksum = tensor_file_module.fill_checksum

            def fill_checksum(*args: Any) -> bytes:
                if is_time(1 + moment % 8):
                    group_signal(number)
                return original_fill_checksum(*args)

            tensor_file_module.fill_checksum = fill_checksum

    return before


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1)
    except BlockingIOError:
        return b""


def survives(runs: Runs, run: Path, before: Callable[[], None], workers: int) -> bool:
    code = runs.start(run, "--checkpoint-every", "2", "--workers", str(workers), before=before)
    return code == EXIT_CODE and runs.resume(run, "--workers", "0") == 0 and runs.ends_equal(run)


@pytest.mark.parametrize(
    ("phase", "number", "workers"),
    [
        pytest.param("first batch", signal.SIGTERM, 2, marks=pytest.mark.slow),
        pytest.param("step", signal.SIGINT, 0, marks=pytest.mark.slow),
        ("data wait", signal.SIGTERM, 2),
        pytest.param("evaluation", signal.SIGTERM, 0, marks=pytest.mark.slow),
        ("saving", signal.SIGINT, 0),
    ],
)
def test_a_moment_of_each_phase(phase: str, number: int, workers: int, runs: Runs, tmp_path: Path) -> None:
    assert survives(runs, tmp_path / "run", signalled_in(phase, 1, number), workers)


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize("phase", PHASES)
def test_ten_moments_of_each_phase(phase: str, workers: int, runs: Runs, tmp_path: Path, tally: Any) -> None:
    lost = [
        moment
        for moment in range(MOMENTS)
        if not survives(runs, tmp_path / f"run-{moment}", signalled_in(phase, moment), workers)
    ]
    print(f"lost: {lost}")
    tally("R4 SIGTERM to the process group in any phase", MOMENTS - len(lost), MOMENTS)


def test_control_workers_that_react_to_the_signal_break_the_run(runs: Runs, tmp_path: Path) -> None:
    def restore_default_handler() -> None:
        start = loader_module._start_worker

        def start_with_default_handler(worker: int) -> None:
            start(worker)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        loader_module._start_worker = start_with_default_handler
        signalled_in("step", 2)()

    assert not all(survives(runs, tmp_path / f"run-{n}", restore_default_handler, 4) for n in range(3))


def test_a_second_signal_exits_immediately(runs: Runs, tmp_path: Path) -> None:
    def twice() -> None:
        def slow(*args: Any) -> bytes:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
            return b""

        tensor_file_module.fill_checksum = slow

    start_time = time.monotonic()
    assert runs.start(tmp_path / "run", "--checkpoint-every", "2", before=twice) == 128 + signal.SIGTERM
    assert time.monotonic() - start_time < 20


@pytest.mark.slow
def test_workers_end_with_the_run(runs: Runs, tmp_path: Path) -> None:
    """No worker remains after the run is killed without a chance to clean up."""
    pids = tmp_path / "pids"

    def kill_in_a_step() -> None:
        start, original_to_device = loader_module._start_worker, update_module.to_device

        def log_pid_and_start(worker: int) -> None:
            with pids.open("a") as file:
                file.write(f"{os.getpid()}\n")
            start(worker)

        def to_device(*args: Any) -> Any:
            if pids.exists() and len(pids.read_text().split()) >= 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return original_to_device(*args)

        loader_module._start_worker = log_pid_and_start
        update_module.to_device = to_device

    assert runs.start(tmp_path / "run", "--workers", "2", before=kill_in_a_step) == -signal.SIGKILL
    remaining = [int(pid) for pid in pids.read_text().split()]
    deadline = time.monotonic() + 30
    while remaining and time.monotonic() < deadline:
        remaining = [pid for pid in remaining if not _has_ended(pid)]
        time.sleep(0.2)
    assert remaining == []


def _has_ended(pid: int) -> bool:
    """Whether a process has ended, including a zombie that its parent has not waited for."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
