"""Time loading and training with several numbers of loader workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from detseg.datasets import Dataset, data_loader
from detseg.engine.update import to_device
from detseg.models import Model
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.runtime.reporter import Reporter

LEAST_BATCHES = 3
"""Batches that are timed at least, after the first one, which waits for the start of the workers."""

MOST_SAMPLES = 200_000
"""Samples of one measurement at most."""


@dataclass(frozen=True)
class WorkerRate:
    """What a number of loader workers achieves.

    Attributes:
        workers: loader processes; 0 loads in the process that trains.
        loading: images per second if nothing else is done.
        training: images per second of training, with forward and backward passes.
        waiting: share in [0, 1] of the time of training that the model waits for images.
        batches: number of timed batches of training.
    """

    workers: int
    loading: float
    training: float
    waiting: float
    batches: int

    def to_dict(self) -> dict[str, Any]:
        """Return the rates for JSON."""
        return asdict(self)


def sweep(
    dataset: Dataset,
    model: Model,
    device: torch.device,
    batch_size: int,
    workers: Sequence[int],
    *,
    seconds: float,
    reporter: Reporter,
) -> list[WorkerRate]:
    """Time loading alone (a third of the time) and training for each number of workers.

    Args:
        dataset: augmented samples.
        seconds: for all of them together; exceeded if :data:`LEAST_BATCHES` batches take longer.
    """
    rates, share = [], seconds / len(workers)
    for number in reporter.progress(workers, "numbers of workers", total=len(workers), unit="number"):
        loading, _, _ = _rate(dataset, None, device, batch_size, number, share / 3)
        training, waiting, batches = _rate(dataset, model, device, batch_size, number, share * 2 / 3)
        rates.append(WorkerRate(number, loading, training, waiting, batches))
    return rates


def _rate(
    dataset: Dataset, model: Model | None, device: torch.device, batch_size: int, workers: int, seconds: float
) -> tuple[float, float, int]:
    """Images per second, the share of time spent waiting for a batch, and the number of timed batches."""
    generator = np.random.default_rng(0)
    epochs = max(1, MOST_SAMPLES // len(dataset))
    rows = [row for _ in range(epochs) for row in generator.permutation(len(dataset)).tolist()]
    rows = (rows * (1 + batch_size * (LEAST_BATCHES + 1) // len(rows)))[:MOST_SAMPLES]
    loader = data_loader(dataset, batch_size, sampler=rows, workers=workers, pin=device.type == "cuda")
    batches, images, waiting_seconds = 0, 0, 0.0
    with _steps(model, device) as step:
        iterator: Iterator[Any] = iter(loader)
        step(next(iterator))
        start = time.perf_counter()
        while batches < LEAST_BATCHES or time.perf_counter() - start < seconds:
            began = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                break
            waiting_seconds += time.perf_counter() - began
            images += len(batch[0])
            step(batch)
            batches += 1
        elapsed = time.perf_counter() - start
    return images / elapsed, waiting_seconds / elapsed, batches


@contextmanager
def _steps(model: Model | None, device: torch.device) -> Iterator[Callable[[Any], None]]:
    """Give a training step that changes no weights and no random numbers; without a model it does nothing."""
    if model is None:
        yield lambda batch: None
        return

    def step(batch: Any) -> None:
        images, targets = to_device(batch[0], batch[1], device)
        torch.stack(list(model(images, targets).values())).sum().backward()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), losses_in_eval_mode(model, gradients=True):
        yield step
