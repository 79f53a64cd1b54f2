"""Measure the time of a training step with the model and data of the run."""

from __future__ import annotations

import time
from typing import Any

import torch

from detseg.engine.update import to_device
from detseg.features.loader import FeatureLoader
from detseg.models.losses_in_eval_mode import losses_in_eval_mode


def seconds_per_step(model: torch.nn.Module, data_loader: Any, device: torch.device, steps: int = 2) -> float:
    """Return the wall seconds of one forward and backward pass, the median of ``steps`` after one warm-up pass.

    Norm statistics, weights and the global random generators do not change; gradients are discarded. Loading is not
    included: it runs in parallel with training.
    """
    images, targets = _first_batch(data_loader)
    images, targets = to_device(images, targets, device)
    times = []
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), losses_in_eval_mode(model, gradients=True):
        for _ in range(steps + 1):
            began = time.perf_counter()
            torch.stack(list(model(images, targets).values())).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - began)
            model.zero_grad(set_to_none=True)
    return sorted(times[1:])[len(times[1:]) // 2]


def _first_batch(data_loader: Any) -> Any:
    """Return a batch of the first rows of the data, independent of the loader's order."""
    if isinstance(data_loader, FeatureLoader):
        return data_loader.first_batch()
    dataset, collate = data_loader.dataset, data_loader.collate_fn
    return collate([dataset[index] for index in range(min(data_loader.batch_size or 1, len(dataset)))])
