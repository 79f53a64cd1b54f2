"""Functions that run in the child processes of a test; the children import this module, not the test file."""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.annotations import table_from_dataset
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.datasets import data_loader
from detseg.engine.evaluate import evaluate
from detseg.engine.train import train_steps
from detseg.errors import DataError
from detseg.metrics import CocoEvaluator
from detseg.models import build_model, describe
from detseg.runtime.processes import Processes, joined_processes
from tests.faults.conftest import DETECTORS, stop_after_step

Work = Callable[[Processes], bytes]
LOST = 3
"""Exit code of a process that lost the connection to the others."""

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["torch", "torchvision", "detseg.cli", "detseg.training.fit"])
"""Fork from a process that has imported everything but run nothing: hotcoco's threads do not survive a fork."""


def start_process(rank: int, world: int, port: int, work: Work, result: Path, timeout: float) -> Any:
    """Start the process with rank ``rank``."""
    process = SERVER.Process(target=_main, args=(rank, world, port, work, result, timeout))
    process.start()
    return process


def _main(rank: int, world: int, port: int, work: Work, result: Path, timeout: float) -> None:
    _set_up(rank, world, port)
    try:
        with joined_processes(torch.device("cpu"), timeout) as processes:
            result.write_bytes(work(processes))
    except ConnectionError as error:
        result.write_text(str(error))
        sys.exit(LOST)


def _set_up(rank: int, world: int, port: int) -> None:
    """Set the environment as ``torchrun`` does."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def free_port() -> int:
    """A TCP port that is not in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def run_together(
    world: int, arguments: list[str], folder: Path, stop: tuple[int, int] | None = None
) -> tuple[list[int], str]:
    """Run the command line in ``world`` processes; return their exit codes and the output of the main process.

    Args:
        stop: (rank, step): send SIGTERM only to this process, after this update.
    """
    port, output = free_port(), folder / "text"
    children = [
        SERVER.Process(target=_command, args=(rank, world, port, arguments, output, stop)) for rank in range(world)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [int(child.exitcode or 0) for child in children], output.read_text()


def _command(
    rank: int, world: int, port: int, arguments: list[str], output: Path, stop: tuple[int, int] | None
) -> None:
    _set_up(rank, world, port)
    out = os.open(output if rank == 0 else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if stop is not None and stop[0] == rank:
        stop_after_step(stop[1])()
    sys.exit(main(arguments))


class Images(torch.utils.data.Dataset[Any]):
    """Random images of 64 x 64 pixels with zero to three squares each."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.class_map = ClassMap.from_names(["a", "b"])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(index)
        count = int(rng.integers(0, 4))
        corner, side = rng.integers(0, 40, (count, 2)), rng.integers(8, 24, (count, 1))
        boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
        image = rng.integers(0, 90, (3, 64, 64)).astype(np.uint8)
        masks = np.zeros((count, 64, 64), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = 1
            image[:, y1:y2, x1:x2] += 120
        target = {"boxes": boxes, "labels": rng.integers(1, 3, count), "masks": masks}
        tensors = {name: torch.from_numpy(value) for name, value in target.items()}
        return torch.from_numpy(image), tensors | {"image_id": torch.tensor(index)}


def make_detector() -> Any:
    """A randomly initialized detector with a score threshold of 0, so that it has detections."""
    torch.manual_seed(0)
    model: Any = build_model(describe(DETECTORS[0], ClassMap.from_names(["a", "b"]), weights="none", image_size=64))
    model.roi_heads.score_thresh = 0.0
    return model.eval()


def average_precisions(sizes: Sequence[int], processes: Processes, share: Processes | None = None) -> bytes:
    """AP and AP50 for each number of images, float64 [sizes, 2]; ``share``: rank and world size for the loader."""
    model, share = make_detector(), share or processes
    rows = []
    for size in sizes:
        images = Images(size)
        table = table_from_dataset(images, images.class_map)
        evaluator = CocoEvaluator(table, geometry=lambda _: model.preprocessing.geometry((64, 64)))
        loader = data_loader(images, 2, rank=share.rank, world=share.world)
        values = evaluate(model, loader, "cpu", evaluator=evaluator, processes=processes).scalars()
        rows.append([math.nan if values[name] is None else values[name] for name in ("bbox_AP", "bbox_AP50")])
    return np.array(rows, np.float64).tobytes()


class Mean(torch.nn.Module):
    """Learns the mean of the images; a step is fast."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def forward(self, images: Sequence[torch.Tensor], targets: object) -> dict[str, torch.Tensor]:
        means = torch.stack([image.float().mean() for image in images])
        return {"loss": (means - self.value).square().mean()}


def train_epochs(sizes: Sequence[int], processes: Processes) -> bytes:
    """Steps, images and the learned value of one epoch for each number of images, as float64 [sizes, 3]."""
    rows = []
    for size in sizes:
        model = Mean()
        parallel_model = processes.share(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        try:
            loader = data_loader(Images(size), 2, shuffle=True, rank=processes.rank, world=processes.world)
        except DataError:
            rows.append([0.0, 0.0, 0.0])
            continue
        steps = list(train_steps(parallel_model, optimizer, loader, "cpu", 1, seed=0, processes=processes))
        rows.append([len(steps), sum(step.images for step in steps), model.value.item()])
    return np.array(rows).tobytes()


def losses_and_gradients(arch: str, processes: Processes) -> bytes:
    """Names of the losses, and the sum of each parameter's gradient; the second process has images without objects."""
    torch.manual_seed(0)
    model = build_model(describe(arch, ClassMap.from_names(["a", "b"]), weights="none", image_size=64))
    parallel_model = processes.share(model.train())
    images, targets = zip(*[Images(9)[index] for index in (1, 2)], strict=True)
    if processes.rank == 1:
        targets = tuple({k: v if v.ndim == 0 else v[:0] for k, v in target.items()} for target in targets)
    losses = parallel_model(list(images), list(targets))
    torch.stack(list(losses.values())).sum().backward()
    gradient_totals = [math.nan if p.grad is None else float(p.grad.double().abs().sum()) for p in model.parameters()]
    return "|".join(losses).encode() + b"\0" + np.array(gradient_totals).tobytes()


def steps_until_signal(number: int, processes: Processes) -> bytes:
    """Run joint updates; the second process sends signal ``number`` to itself in the fourth update."""
    parallel_model = processes.share(torch.nn.Linear(2, 2))
    for step in range(1000):
        if processes.rank == 1 and step == 3:
            os.kill(os.getpid(), number)
        parallel_model(torch.ones(1, 2)).sum().backward()
        processes.any([False])
    return b"done"
