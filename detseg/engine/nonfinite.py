"""Detect losses and gradients that are not finite before they change a weight, and report their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from detseg.runtime.user_command import user_command

Target = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """Input of one forward pass."""

    images: Sequence[Tensor]
    targets: Sequence[Target]
    index: int


class NotFinite(FloatingPointError):
    """A loss or gradient is not finite. The weights and norm statistics are those before the update.

    Attributes:
        batches: batches of the update.
        values: loss terms (or the gradient norm) by name, such as {"loss": inf, "loss_mask": inf, ...}.
    """

    def __init__(self, message: str, batches: Sequence[Batch], values: dict[str, float]) -> None:
        super().__init__(message)
        self.batches, self.values = tuple(batches), values


def norm_statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Buffers that a forward pass in training mode changes, each with a copy of its current value."""
    return [
        (buffer, buffer.clone())
        for module in model.modules()
        if isinstance(module, _NormBase) and module.training and module.track_running_stats
        for buffer in module.buffers(recurse=False)
    ]


@torch.no_grad()
def restore_norm_statistics(statistics: list[tuple[Tensor, Tensor]]) -> None:
    """Restore the buffers to their values at the time of :func:`norm_statistics`."""
    for buffer, saved in statistics:
        buffer.copy_(saved)


def message(
    values: dict[str, float],
    batches: Sequence[Batch],
    names: dict[int, str],
    optimizer: torch.optim.Optimizer,
    epoch: int,
) -> str:
    """Error message: which values are not finite, on which images, and the remedy. ``epoch``: from 0."""
    terms = ", ".join(f"{name} {value}" for name, value in values.items())
    ids = [int(target["image_id"]) for batch in batches for target in batch.targets if "image_id" in target]
    shown = ", ".join(names.get(image_id, f"image_id {image_id}") for image_id in ids) or "unknown (no image_id)"
    return (
        f"epoch {epoch + 1}, step {batches[-1].index}: not finite ({terms}) on images {shown}; "
        f"the learning rate is {optimizer.param_groups[-1]['lr']:.2g}. The weights were not updated. "
        f"Lower --lr or --clip-norm, or check these images with: {user_command('inspect', 'DATA')}"
    )
