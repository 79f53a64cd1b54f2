"""How many images fit on a GPU at a time, measured on the model and on the image with the most objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from detseg.datasets import Dataset
from detseg.engine.update import to_device
from detseg.models.losses_in_eval_mode import losses_in_eval_mode

SHARE = 0.8
"""Of the GPU's memory: images differ, and the allocator needs room between its blocks."""
LARGEST = 64
"""More gains no speed, and with few images leaves few updates."""
COPIES = 3
"""Of the learning weights, beside themselves: gradients, and the two means of AdamW."""


def fitting_batch_size(model: torch.nn.Module, dataset: Dataset, device: torch.device) -> tuple[int, str]:
    """The largest batch that a training step surely has memory for, and how it was found.

    Args:
        model: on ``device``, frozen as it will be. It learns nothing.
        dataset: of training.
    """
    room = int(SHARE * torch.cuda.get_device_properties(device).total_memory)
    learning = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    counts = dataset.table.instances_per_image()
    image, target = dataset[int(np.argmax(counts))]

    def peak(count: int) -> int | None:
        return _peak(model, [image] * count, [target] * count, device)

    size, used = largest_batch(peak, room - COPIES * learning, min(LARGEST, len(dataset)))
    return size, f"takes {(used + COPIES * learning) / 2**30:.1f} of {room / SHARE / 2**30:.1f} GiB"


def largest_batch(peak: Callable[[int], int | None], room: int, most: int) -> tuple[int, int]:
    """The largest count in 1..``most`` whose peak is within ``room``, and its peak; 1 where nothing fits.

    Memory grows evenly with the count, so two measurements tell where to look; the place is then measured itself.

    Args:
        peak: bytes that a step of so many images needs; None if there is not so much memory.
    """
    first = peak(1) or 0
    second = peak(2) if most > 1 else None
    if second is None or second > room:
        return 1, first
    each = max(second - first, 1)
    count, used = 2, second
    wanted = max(2, min(most, 1 + (room - first) // each))
    while wanted > count:
        found = peak(wanted)
        if found is not None and found <= room:
            return wanted, found
        wanted = min(wanted - 1, round(0.85 * wanted))
    return count, used


def _peak(
    model: torch.nn.Module, images: list[torch.Tensor], targets: list[object], device: torch.device
) -> int | None:
    """Bytes allocated at most in one forward and backward pass; None if they are not there."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        moved, wanted = to_device(images, targets, device)  # type: ignore[arg-type]
        with torch.random.fork_rng([device]), losses_in_eval_mode(model, gradients=True):
            torch.stack(list(model(moved, wanted).values())).sum().backward()
        return int(torch.cuda.max_memory_allocated(device))
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
