"""Several processes: one AP for one checkpoint, equal graphs, and a bounded end when one of them fails.

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
    begin,
    epochs,
    free_port,
    graph,
    run_together,
    scores,
    steps_until,
)
from tests.faults.conftest import DETECTORS, OPTIONS, Runs, rows_of

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # where the new processes find tests.faults.children
WORLDS = (1, 2, 3, 4, 8)
SIZES = range(1, 18)


def together(world: int, work: Work, folder: Path, timeout: float = 60.0) -> list[bytes]:
    """What ``work`` gives in each of ``world`` processes; AssertionError if one fails."""
    port = free_port()
    results = [folder / f"rank-{rank}" for rank in range(world)]
    children = [begin(rank, world, port, work, result, timeout) for rank, result in enumerate(results)]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * world
    return [result.read_bytes() for result in results]


def numbers(content: bytes) -> Any:
    return np.frombuffer(content).reshape(-1, 2)


@pytest.mark.faults
def test_ap_is_equal_for_every_number_of_processes(tmp_path: Path, tally: Any) -> None:
    """85 combinations of 5 worlds and 17 sizes."""
    alone = numbers(*together(1, partial(scores, SIZES), tmp_path))
    assert np.nanmax(alone) > 0, "something is found, or equality says nothing"
    for world in WORLDS:
        parts = together(world, partial(scores, SIZES), tmp_path)
        near = [np.isclose(numbers(part), alone, rtol=0, atol=1e-12, equal_nan=True).all(1) for part in parts]
        tally("E1 AP for any number of processes and images", int(np.all(near, axis=0).sum()), len(SIZES))


def test_ap_of_two_and_three_processes(tmp_path: Path) -> None:
    work = partial(scores, (1, 5))
    alone = numbers(*together(1, work, tmp_path))
    assert np.nanmax(alone) > 0
    for world in (2, 3):
        for part in together(world, work, tmp_path):
            np.testing.assert_allclose(numbers(part), alone, rtol=0, atol=1e-12)


def test_control_a_share_alone_scores_otherwise(tmp_path: Path) -> None:
    """What one of two processes would say without the other's predictions."""
    alone = numbers(*together(1, partial(scores, (5,)), tmp_path))
    half = numbers(*together(1, partial(scores, (5,), share=Processes(0, 2)), tmp_path))
    assert half[0, 0] != alone[0, 0]


@pytest.mark.faults
@pytest.mark.parametrize("arch", DETECTORS)
def test_a_process_whose_images_are_all_negative_has_the_same_graph(arch: str, tmp_path: Path, tally: Any) -> None:
    """The same losses by name, the same gradients, and one for every parameter."""
    first, second = together(2, partial(graph, arch), tmp_path)
    whole = not np.isnan(np.frombuffer(first.partition(b"\0")[2])).any()
    tally("G1 process without an object: equal graph", int(first == second and whole), 1)


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3])
def test_a_run_on_several_processes_goes_on_to_the_same_bytes(world: int, runs: Runs, tmp_path: Path) -> None:
    """Stopped by a signal to ``torchrun`` after the first epoch, as a cluster does it."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world), "--standalone"]
    start += [str(ROOT / "tools" / "train.py")]
    train = [*start, str(runs.images), *OPTIONS, "--epochs", "4"]
    subprocess.run([*train, "--output", str(tmp_path / "straight")], check=True, capture_output=True)
    stopped = tmp_path / "stopped"
    with subprocess.Popen([*train, "--output", str(stopped)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 0/3") for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.returncode != 0
    assert "go on with" in rest
    assert len(rows_of(stopped)) < 4
    subprocess.run([*start, "--resume", str(stopped)], check=True, capture_output=True)
    assert rows_of(tmp_path / "straight") == rows_of(stopped)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "straight" / name).read_bytes() == (stopped / name).read_bytes()


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.faults)])
def test_one_is_asked_to_leave_and_all_go_on_later(world: int, runs: Runs, tmp_path: Path) -> None:
    """In the middle of an epoch: the last process alone hears the signal, and all save and leave."""
    train = ["train", str(runs.images), *OPTIONS, "--batch-size", "1", "--output"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert run_together(world, [*train, str(straight)], tmp_path)[0] == [0] * world
    codes, text = run_together(world, [*train, str(stopped)], tmp_path, stop=(world - 1, 2))
    assert codes == [EXIT_CODE] * world
    assert "saved step" in text
    assert load_checkpoint(stopped / "last.safetensors").position.micro_batches > 0
    assert run_together(world, ["train", "--resume", str(stopped)], tmp_path)[0] == [0] * world
    assert rows_of(straight) == rows_of(stopped)
    for name in ("last.safetensors", "best.safetensors"):
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()


def test_two_processes_fill_one_folder_of_features(runs: Runs, tmp_path: Path) -> None:
    """Each computes its share; both train on all of it, as one process would with the same batches."""
    folder = tmp_path / "features"
    train = ["train", str(runs.images), *OPTIONS, "--freeze", "backbone", "--cache-dtype", "float32"]
    train += ["--augment", "none", "--batch-size", "1", "--cache-dir", str(folder)]
    codes, text = run_together(2, [*train, "--output", str(tmp_path / "cached")], tmp_path)
    assert codes == [0, 0]
    assert f"in {folder}; 1 s to compute, once" in text
    split = json.loads((tmp_path / "cached" / "split.json").read_text())
    assert len(list(folder.glob("*/*.safetensors"))) == len(split["splits"]["train"])
    assert run_together(2, [*train, "--cache", "off", "--output", str(tmp_path / "plain")], tmp_path)[0] == [0, 0]
    cached, plain = (load_checkpoint(tmp_path / name / "last.safetensors").weights for name in ("cached", "plain"))
    assert all(torch.equal(tensor, plain[name]) for name, tensor in cached.items())
    assert run_together(2, [*train, "--cache", "memory", "--output", str(tmp_path / "memory")], tmp_path)[0] == [0, 0]
    memory = load_checkpoint(tmp_path / "memory" / "last.safetensors").weights
    assert all(torch.equal(tensor, plain[name]) for name, tensor in memory.items())


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 3, 4])
def test_any_number_of_images_gives_all_processes_as_many_steps(world: int, tmp_path: Path, tally: Any) -> None:
    parts = [np.frombuffer(part).reshape(-1, 3) for part in together(world, partial(epochs, SIZES), tmp_path)]
    expected = [size // (2 * world) for size in SIZES]
    good = [
        all(part[row, 0] == steps and part[row, 1] == 2 * steps and part[row, 2] == parts[0][row, 2] for part in parts)
        for row, steps in enumerate(expected)
    ]
    tally("G1 any number of images: as many steps for each process", sum(good), len(SIZES))


@pytest.mark.parametrize(
    ("before", "after"), [pytest.param(2, 1, marks=pytest.mark.slow), pytest.param(1, 2, marks=pytest.mark.faults)]
)
def test_other_processes_go_on_and_say_what_is_not_equal(before: int, after: int, runs: Runs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ["train", str(runs.images), *OPTIONS, "--batch-size", "1", "--output", str(run)]
    codes, _ = run_together(before, train, tmp_path, stop=(0, 3))
    assert codes == [EXIT_CODE] * before
    codes, text = run_together(after, ["train", "--resume", str(run)], tmp_path)
    assert codes == [0] * after
    begun = f"begun by {before} process{'es' if before > 1 else ''}, now {after}"
    assert f"{begun}: an update has {after} images instead of {before}" in text
    assert len(rows_of(run)) == 2
    seen = 11 if after == 1 else 10
    assert load_checkpoint(run / "last.safetensors").position.step == 2 * (seen // after)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_who_dies_or_hangs_ends_the_others(how: int, tmp_path: Path) -> None:
    limit, began, port = 5.0, time.monotonic(), free_port()
    first, second = (begin(rank, 2, port, partial(steps_until, how), tmp_path / str(rank), limit) for rank in (0, 1))
    first.join(6 * limit)
    second.kill()
    second.join()
    assert first.exitcode == LOST
    assert time.monotonic() - began < 6 * limit
    assert "process 0 of 2 lost the others" in (tmp_path / "0").read_text()


def test_one_process_tells_nobody() -> None:
    alone = Processes()
    model = torch.nn.Linear(1, 1)
    assert alone.share(model) is model
    assert alone.any([True, False]) == [True, False]
    assert alone.sum([1.5]) == [1.5]
    assert alone.gather(b"x") == [b"x"]
    assert alone.broadcast_bytes(b"x") == b"x"
