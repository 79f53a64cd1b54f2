"""Several processes: the same AP for a checkpoint, equal graphs, and a timeout when one of them fails.

E1 and G1 of the scorecard, with gloo on a CPU.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.runtime.processes import Processes
from detseg.runtime.signals import EXIT_CODE
from tests.faults.children import (
    LOST,
    Work,
    average_precisions,
    free_port,
    losses_and_gradients,
    run_together,
    start_process,
    steps_until_signal,
    train_epochs,
)
from tests.faults.conftest import DETECTORS, OPTIONS, Runs, rows_of

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # the child processes import tests.faults.children from here
WORLDS = (1, 2, 3, 4, 8)
SIZES = range(1, 18)


def together(world: int, work: Work, folder: Path, timeout: float = 60.0) -> list[bytes]:
    """Run ``work`` in ``world`` processes; return the result of each. AssertionError if one fails."""
    port = free_port()
    results = [folder / f"rank-{rank}" for rank in range(world)]
    children = [start_process(rank, world, port, work, result, timeout) for rank, result in enumerate(results)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * world
    return [result.read_bytes() for result in results]


def numbers(content: bytes) -> Any:
    return np.frombuffer(content).reshape(-1, 2)


@pytest.mark.faults
def test_ap_is_equal_for_every_number_of_processes(tmp_path: Path, tally: Any) -> None:
    """85 combinations of 5 world sizes and 17 numbers of images."""
    expected = numbers(*together(1, partial(average_precisions, SIZES), tmp_path))
    assert np.nanmax(expected) > 0, "without detections the comparison is empty"
    for world in WORLDS:
        results = together(world, partial(average_precisions, SIZES), tmp_path)
        equal = [np.isclose(numbers(part), expected, rtol=0, atol=1e-12, equal_nan=True).all(1) for part in results]
        tally("E1 AP for any number of processes and images", int(np.all(equal, axis=0).sum()), len(SIZES))


def test_ap_of_two_and_three_processes(tmp_path: Path) -> None:
    work = partial(average_precisions, (1, 5))
    expected = numbers(*together(1, work, tmp_path))
    assert np.nanmax(expected) > 0
    for world in (2, 3):
        for part in together(world, work, tmp_path):
            np.testing.assert_allclose(numbers(part), expected, rtol=0, atol=1e-12)


def test_control_the_share_of_one_process_has_another_ap(tmp_path: Path) -> None:
    """The AP of one of two processes without the predictions of the other."""
    expected = numbers(*together(1, partial(average_precisions, (5,)), tmp_path))
    half = numbers(*together(1, partial(average_precisions, (5,), share=Processes(0, 2)), tmp_path))
    assert half[0, 0] != expected[0, 0]


@pytest.mark.faults
@pytest.mark.parametrize("arch", DETECTORS)
def test_a_process_with_images_without_objects_has_the_same_graph(arch: str, tmp_path: Path, tally: Any) -> None:
    """The same loss names, the same gradients, and a gradient for every parameter."""
    first, second = together(2, partial(losses_and_gradients, arch), tmp_path)
    complete = not np.isnan(np.frombuffer(first.partition(b"\0")[2])).any()
    tally("G1 process without an object: equal graph", int(first == second and complete), 1)


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3])
def test_a_resumed_run_on_several_processes_ends_equal(world: int, runs: Runs, tmp_path: Path) -> None:
    """Stopped by a signal to ``torchrun`` after the first epoch, as on a cluster."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world), "--standalone"]
    start += [str(ROOT / "tools" / "train.py")]
    train = [*start, str(runs.images), *OPTIONS, "--epochs", "4"]
    subprocess.run([*train, "--output", str(tmp_path / "uninterrupted")], check=True, capture_output=True)
    stopped = tmp_path / "stopped"
    with subprocess.Popen([*train, "--output", str(stopped)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/4") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode != 0
    assert "resume with" in rest
    assert len(rows_of(stopped)) < 4
    subprocess.run([*start, "--resume", str(stopped)], check=True, capture_output=True)
    assert rows_of(tmp_path / "uninterrupted") == rows_of(stopped)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "uninterrupted" / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.faults)])
def test_a_signal_to_one_process_stops_all_and_the_run_can_be_resumed(world: int, runs: Runs, tmp_path: Path) -> None:
    """In the middle of an epoch: only the last process receives the signal, and all of them save and exit."""
    train = ["train", str(runs.images), *OPTIONS, "--batch-size", "1", "--output"]
    uninterrupted, stopped = tmp_path / "uninterrupted", tmp_path / "stopped"
    assert run_together(world, [*train, str(uninterrupted)], tmp_path)[0] == [0] * world
    codes, text = run_together(world, [*train, str(stopped)], tmp_path, stop=(world - 1, 2))
    assert codes == [EXIT_CODE] * world
    assert "saved step" in text
    assert load_checkpoint(stopped / "last.safetensors").position.micro_batches > 0
    assert run_together(world, ["train", "--resume", str(stopped)], tmp_path)[0] == [0] * world
    assert rows_of(uninterrupted) == rows_of(stopped)
    for name in ("last.safetensors", "best.safetensors"):
        assert (uninterrupted / name).read_bytes() == (stopped / name).read_bytes()


def test_two_processes_fill_one_folder_of_features(runs: Runs, tmp_path: Path) -> None:
    """Each computes its share; both train on all features, as a single process would with the same batches."""
    folder = tmp_path / "features"
    train = ["train", str(runs.images), *OPTIONS, "--freeze", "backbone", "--cache-dtype", "float32"]
    train += ["--augment", "none", "--batch-size", "1", "--cache-dir", str(folder)]
    codes, text = run_together(2, [*train, "--output", str(tmp_path / "cached")], tmp_path)
    assert codes == [0, 0]
    assert f"in {folder}; 1 s to compute, once" in text
    split = json.loads((tmp_path / "cached" / "split.json").read_text())
    assert len(list(folder.glob("*/*.safetensors"))) == len(split["splits"]["train"])
    assert run_together(2, [*train, "--cache", "off", "--output", str(tmp_path / "uncached")], tmp_path)[0] == [0, 0]
    names = ("cached", "uncached")
    cached, uncached = (load_checkpoint(tmp_path / name / "last.safetensors").weights for name in names)
    assert all(torch.equal(tensor, uncached[name]) for name, tensor in cached.items())
    assert run_together(2, [*train, "--cache", "memory", "--output", str(tmp_path / "memory")], tmp_path)[0] == [0, 0]
    memory = load_checkpoint(tmp_path / "memory" / "last.safetensors").weights
    assert all(torch.equal(tensor, uncached[name]) for name, tensor in memory.items())


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3, 4])
def test_all_processes_have_equal_steps_for_any_number_of_images(world: int, tmp_path: Path, tally: Any) -> None:
    parts = [np.frombuffer(part).reshape(-1, 3) for part in together(world, partial(train_epochs, SIZES), tmp_path)]
    expected = [size // (2 * world) for size in SIZES]
    good = [
        all(part[row, 0] == steps and part[row, 1] == 2 * steps and part[row, 2] == parts[0][row, 2] for part in parts)
        for row, steps in enumerate(expected)
    ]
    tally("G1 any number of images: equal steps for each process", sum(good), len(SIZES))


@pytest.mark.parametrize(
    ("before", "after"), [pytest.param(2, 1, marks=pytest.mark.slow), pytest.param(1, 2, marks=pytest.mark.faults)]
)
def test_resuming_with_another_world_size_prints_the_difference(
    before: int, after: int, runs: Runs, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train = ["train", str(runs.images), *OPTIONS, "--batch-size", "1", "--output", str(run)]
    codes, _ = run_together(before, train, tmp_path, stop=(0, 3))
    assert codes == [EXIT_CODE] * before
    codes, text = run_together(after, ["train", "--resume", str(run)], tmp_path)
    assert codes == [0] * after
    started = f"started by {before} process{'es' if before > 1 else ''}, now {after}"
    assert f"{started}: a step has {after} images instead of {before}" in text
    assert len(rows_of(run)) == 2
    seen = 11 if after == 1 else 10
    assert load_checkpoint(run / "last.safetensors").position.step == 2 * (seen // after)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_process_that_dies_or_hangs_stops_the_others(number: int, tmp_path: Path) -> None:
    limit, start_time, port = 5.0, time.monotonic(), free_port()
    work = partial(steps_until_signal, number)
    first, second = (start_process(rank, 2, port, work, tmp_path / str(rank), limit) for rank in (0, 1))
    first.join(6 * limit)
    second.kill()
    second.join()
    assert first.exitcode == LOST
    assert time.monotonic() - start_time < 6 * limit
    assert "process 0 of 2 lost the connection to the others" in (tmp_path / "0").read_text()


def test_collectives_of_a_single_process_are_no_ops() -> None:
    single = Processes()
    model = torch.nn.Linear(1, 1)
    assert single.share(model) is model
    assert single.any([True, False]) == [True, False]
    assert single.sum([1.5]) == [1.5]
    assert single.gather(b"x") == [b"x"]
    assert single.broadcast_bytes(b"x") == b"x"
