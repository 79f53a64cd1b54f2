"""Measure the largest batch that fits in GPU memory, with the model and the image with the most objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from detseg.datasets import Dataset
from detseg.engine.update import to_device
from detseg.models.losses_in_eval_mode import losses_in_eval_mode

SHARE = 0.8
"""Share of the GPU memory to use: images differ in size, and the allocator needs space between its blocks."""
LARGEST = 64
"""A larger batch is not faster, and with few images it leaves few steps per epoch."""
COPIES = 3
"""Copies of the trainable weights in memory: gradients, and the two moments of AdamW."""


def fitting_batch_size(model: torch.nn.Module, dataset: Dataset, device: torch.device) -> tuple[int, str]:
    """Return the largest batch size that fits in memory in a training step, and a text with the memory use.

    Args:
        model: on ``device``, frozen as in training. Its weights do not change.
        dataset: the training data.
    """
    budget = int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    crowded = int(np.argmax(dataset.table.instances_per_image()))
    image, target = dataset[crowded if dataset.tiles is None else dataset.tiles.first_of(crowded)]

    def peak(count: int) -> int | None:
        return _peak(model, [image] * count, [target] * count, device)

    size, used = largest_batch(peak, budget - COPIES * trainable, min(LARGEST, len(dataset)))
    return size, f"uses {(used + COPIES * trainable) / 2**30:.1f} of {budget / SHARE / 2**30:.1f} GiB"


def largest_batch(peak: Callable[[int], int | None], budget: int, largest: int) -> tuple[int, int]:
    """Return the largest count in 1..``largest`` whose peak is within ``budget``, and its peak; 1 if nothing fits.

    Memory grows linearly with the count, so two measurements predict the result, which is then measured itself.

    Args:
        peak: returns the bytes that a step with this number of images needs; None if it runs out of memory.
    """
    first = peak(1) or 0
    second = peak(2) if largest > 1 else None
    if second is None or second > budget:
        return 1, first
    bytes_per_image = max(second - first, 1)
    count, used = 2, second
    candidate = max(2, min(largest, 1 + (budget - first) // bytes_per_image))
    while candidate > count:
        measured = peak(candidate)
        if measured is not None and measured <= budget:
            return candidate, measured
        candidate = min(candidate - 1, round(0.85 * candidate))
    return count, used


def _peak(
    model: torch.nn.Module, images: list[torch.Tensor], targets: list[object], device: torch.device
) -> int | None:
    """Return the peak of allocated bytes in one forward and backward pass; None if it runs out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        batch_images, batch_targets = to_device(images, targets, device)  # type: ignore[arg-type]
        with torch.random.fork_rng([device]), losses_in_eval_mode(model, gradients=True):
            torch.stack(list(model(batch_images, batch_targets).values())).sum().backward()
        return int(torch.cuda.max_memory_allocated(device))
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
