"""The time of a step is measured with any loader that has a first batch."""

from __future__ import annotations

from typing import Any

import torch

from detseg.training.step_time import seconds_per_step


class OneBatch:
    """A loader from elsewhere."""

    def __init__(self) -> None:
        self.calls = 0

    def first_batch(self) -> Any:
        self.calls += 1
        return [torch.ones(3, 4, 4)], [{"value": torch.tensor(2.0)}]


class Mean(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: Any, targets: Any) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * images[0].mean() - targets[0]["value"]) ** 2}


def test_any_loader_with_a_first_batch() -> None:
    loader, model = OneBatch(), Mean()
    assert seconds_per_step(model, loader, torch.device("cpu")) > 0
    assert loader.calls == 1
    assert model.weight.item() == 1
    assert model.weight.grad is None
