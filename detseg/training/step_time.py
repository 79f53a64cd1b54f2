"""Measure the time of a training step with the model and data of the run."""

from __future__ import annotations

import time

import torch

from detseg.datasets.contracts import FirstBatchLoader
from detseg.engine.update import to_device
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.runtime.reporter import Reporter, silent


def seconds_per_step(
    model: torch.nn.Module,
    data_loader: FirstBatchLoader,
    device: torch.device,
    steps: int = 2,
    reporter: Reporter | None = None,
) -> float:
    """Return the wall seconds of one forward and backward pass, the median of ``steps`` after one warm-up pass.

    Norm statistics, weights and the global random generators do not change; gradients are discarded. Loading is not
    included: it runs in parallel with training.
    """
    images, targets = data_loader.first_batch()
    images, targets = to_device(images, targets, device)
    times = []
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), losses_in_eval_mode(model, gradients=True):
        for _ in (reporter or silent()).progress(range(steps + 1), "measuring a step", total=steps + 1, unit="step"):
            began = time.perf_counter()
            torch.stack(list(model(images, targets).values())).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
            model.zero_grad(set_to_none=True)
    return sorted(times[1:])[len(times[1:]) // 2]
