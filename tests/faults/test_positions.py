"""Runs that are stopped at any step and resumed with other workers end with identical files. R3 of the scorecard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import detseg.datasets.dataset as dataset_module
import detseg.engine.train as train_module
from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.datasets.sampler import EpochSampler
from detseg.runtime.signals import EXIT_CODE
from tests.faults.conftest import STEPS, Runs, stop_after_step

WORKERS = (0, 1, 3, 4)
NAME = "R3 resumed at any step, with another number of workers"


def resumes_equal(runs: Runs, run: Path, step: int, workers: int, before: Any = None) -> bool:
    """Whether a run stopped after ``step`` and resumed with ``workers``, another number than before, ends equal."""
    first_workers = WORKERS[(WORKERS.index(workers) + 1 + step % 3) % len(WORKERS)]
    assert first_workers != workers
    code = runs.start(run, "--workers", str(first_workers), before=stop_after_step(step))
    position = load_checkpoint(run / "last.safetensors").position
    assert (code, position.step, position.epoch, position.micro_batches) == (
        EXIT_CODE, step, (step - 1) // 6, (step - 1) % 6 + 1,
    )  # fmt: skip
    return runs.resume(run, "--workers", str(workers), before=before) == 0 and runs.ends_equal(run)


@pytest.mark.parametrize(
    ("step", "workers"), [(5, 0), *(pytest.param(*args, marks=pytest.mark.slow) for args in ((1, 3), (6, 1), (8, 0)))]
)
def test_some_positions(step: int, workers: int, runs: Runs, tmp_path: Path) -> None:
    assert resumes_equal(runs, tmp_path / "run", step, workers)


@pytest.mark.faults
@pytest.mark.parametrize("workers", WORKERS)
def test_48_positions(workers: int, runs: Runs, tmp_path: Path, tally: Any) -> None:
    lost = [step for step in range(1, STEPS + 1) if not resumes_equal(runs, tmp_path / f"run-{step}", step, workers)]
    print(f"lost: {lost}")
    tally(NAME, STEPS - len(lost), STEPS)


def test_control_a_sampler_that_restarts_the_epoch_ends_differently(runs: Runs, tmp_path: Path) -> None:
    def restart_epoch() -> None:
        train_module._start_at = lambda loader, epoch, start: loader.sampler.set_epoch(epoch)

    assert not resumes_equal(runs, tmp_path / "run", 3, 0, before=restart_epoch)


@pytest.mark.slow
def test_control_a_single_random_stream_ends_differently(runs: Runs, tmp_path: Path) -> None:
    """If augmentation depends on the number of samples before, a run that skips them has different samples."""

    def one_stream() -> None:
        count = 0

        def count_calls(*parts: int) -> int:
            nonlocal count
            count += 1
            return count

        dataset_module.derive_seed = count_calls  # type: ignore[attr-defined]

    assert not resumes_equal(runs, tmp_path / "run", 3, 0, before=one_stream)


def test_skipping_to_a_position_is_fast() -> None:
    """Order and position are computed: samples that are done are not loaded again."""
    sampler = EpochSampler(200_000, shuffle=True)
    sampler.set_epoch(3, skip=199_990)
    start_time = time.perf_counter()
    assert len(list(sampler)) == 10
    assert time.perf_counter() - start_time < 0.5
