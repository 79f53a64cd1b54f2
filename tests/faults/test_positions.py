"""Runs that are stopped at every step and go on with other loader processes: the same bytes. R3 of the scorecard."""

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
from tests.faults.conftest import STEPS, Runs, stopping_at

WORKERS = (0, 1, 3, 4)
NAME = "R3 step to go on from, with other loader processes"


def goes_on(runs: Runs, run: Path, step: int, workers: int, before: Any = None) -> bool:
    """Whether a run that was stopped after ``step`` goes on with ``workers``, and others before, to equal bytes."""
    others = WORKERS[(WORKERS.index(workers) + 1 + step % 3) % len(WORKERS)]
    assert others != workers
    code = runs.begin(run, "--workers", str(others), before=stopping_at(step))
    position = load_checkpoint(run / "last.safetensors").position
    assert (code, position.step, position.epoch, position.micro_batches) == (
        EXIT_CODE, step, (step - 1) // 6, (step - 1) % 6 + 1,
    )  # fmt: skip
    return runs.go_on(run, "--workers", str(workers), before=before) == 0 and runs.ends_equal(run)


@pytest.mark.parametrize(
    ("step", "workers"), [(5, 0), *(pytest.param(*given, marks=pytest.mark.slow) for given in ((1, 3), (6, 1), (8, 0)))]
)
def test_some_positions(step: int, workers: int, runs: Runs, tmp_path: Path) -> None:
    assert goes_on(runs, tmp_path / "run", step, workers)


@pytest.mark.faults
@pytest.mark.parametrize("workers", WORKERS)
def test_48_positions(workers: int, runs: Runs, tmp_path: Path, tally: Any) -> None:
    lost = [step for step in range(1, STEPS + 1) if not goes_on(runs, tmp_path / f"run-{step}", step, workers)]
    print(f"lost: {lost}")
    tally(NAME, STEPS - len(lost), STEPS)


def test_control_a_sampler_that_begins_anew_ends_otherwise(runs: Runs, tmp_path: Path) -> None:
    def from_the_begin() -> None:
        train_module._begin_at = lambda loader, epoch, start: loader.sampler.set_epoch(epoch)

    assert not goes_on(runs, tmp_path / "run", 3, 0, before=from_the_begin)


@pytest.mark.slow
def test_control_random_numbers_from_one_stream_end_otherwise(runs: Runs, tmp_path: Path) -> None:
    """Where augmentation depends on how many samples were drawn before, a run that skipped them goes elsewhere."""

    def one_stream() -> None:
        count = 0

        def counted(*parts: int) -> int:
            nonlocal count
            count += 1
            return count

        dataset_module.derive_seed = counted  # type: ignore[attr-defined]

    assert not goes_on(runs, tmp_path / "run", 3, 0, before=one_stream)


def test_going_to_a_position_takes_no_time() -> None:
    """Order and position are arithmetic: nothing that was done is drawn again."""
    sampler = EpochSampler(200_000, shuffle=True)
    sampler.set_epoch(3, skip=199_990)
    began = time.perf_counter()
    assert len(list(sampler)) == 10
    assert time.perf_counter() - began < 0.5
