"""Count the correct predictions of a training epoch, from the forward passes that are made for the losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Counts = dict[str, tuple[int, int]]
"""Name -> number of correct predictions, number of labelled images. Names are "accuracy" or "accuracy_<field>"."""


@runtime_checkable
class CountsCorrect(Protocol):
    """A model whose forward pass in training mode also counts its correct predictions. Optional for a model.

    The result of ``model(images, targets)`` stays the losses; the counts are an attribute, which is replaced at each
    forward pass in training mode.

    Attributes:
        correct_counts: name -> int64 [2] on any device: number of correct predictions, and of labelled images, in the
            last batch. Images without a label count in neither.
    """

    correct_counts: dict[str, Tensor]


def batch_counts(model: torch.nn.Module) -> Counts:
    """Counts of the last batch; empty for a model that does not count."""
    if not isinstance(model, CountsCorrect) or not model.correct_counts:
        return {}
    numbers = torch.stack(list(model.correct_counts.values())).tolist()  # a single transfer from the GPU
    return {name: (row[0], row[1]) for name, row in zip(model.correct_counts, numbers, strict=True)}


def add_counts(total: Counts, more: Mapping[str, tuple[int, int]]) -> None:
    """Add counts to ``total``."""
    for name, (correct, labelled) in more.items():
        before = total.get(name, (0, 0))
        total[name] = (before[0] + correct, before[1] + labelled)
