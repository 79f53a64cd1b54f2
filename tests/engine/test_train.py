"""The training loop on a model small enough to follow by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detseg.engine.train import train_one_epoch


class Mean(nn.Module):
    """Learns the mean of the images' pixels; one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        means = torch.stack([image.mean() for image in images])
        return {"loss_mean": (means - self.value).square().mean(), "loss_zero": self.value * 0.0}


class Noisy(Mean):
    """Draws from the global generator, as detectors do."""

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"loss": (torch.randn(()) - self.value).square()}


def loader(values: list[float], batch_size: int = 1) -> torch.utils.data.DataLoader[Any]:
    samples = [(torch.full((3, 2, 2), value), {"image_id": torch.tensor(i)}) for i, value in enumerate(values)]
    return torch.utils.data.DataLoader(samples, batch_size, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))  # type: ignore[arg-type]


def constant(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def test_no_batches() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    stats = train_one_epoch(model, optimizer, loader([]), "cpu", 0)
    assert (stats.images, stats.steps, stats.losses) == (0, 0, {})


def test_one_step_is_one_gradient_step() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    stats = train_one_epoch(model, optimizer, loader([4.0]), "cpu", 0, scheduler=constant(optimizer))
    assert model.value.item() == pytest.approx(0.25 * 2 * 4.0)
    assert stats.losses == {"loss": 16.0, "loss_mean": 16.0, "loss_zero": 0.0}


def test_losses_are_means_over_images_when_the_last_batch_is_smaller() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stats = train_one_epoch(model, optimizer, loader([1.0, 1.0, 3.0], batch_size=2), "cpu", 1)
    assert stats.losses["loss"] == pytest.approx((1 + 1 + 9) / 3)


def test_gradient_is_clipped() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    train_one_epoch(model, optimizer, loader([100.0]), "cpu", 1, clip_norm=1.0)
    assert model.value.item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_image(value: float) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match=r"loss_mean (nan|inf).*image_id \[1\]") as caught:
        train_one_epoch(model, optimizer, loader([2.0, value]), "cpu", 1)
    assert "--lr" in str(caught.value)
    assert model.value.item() == pytest.approx(0.4)  # the first, good step alone


def test_first_epoch_warms_up_without_a_scheduler_as_the_reference_does() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0]), "cpu", 0)
    alone = model.value.item()
    assert alone == pytest.approx(0.2)  # a single step has nothing to warm up
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0] * 11), "cpu", 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert model.value.item() < 1 - 0.8**11  # control: what 11 steps at the full rate give


def test_a_step_draws_the_same_numbers_however_the_run_got_there() -> None:
    results = []
    for disturb in (False, True):
        model = Noisy()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(0)
        if disturb:
            torch.randn(7)
        for epoch in range(2):
            train_one_epoch(model, optimizer, loader([1.0, 2.0]), "cpu", epoch, scheduler=constant(optimizer), seed=3)
        results.append(model.value.item())
    assert results[0] == results[1]
    model = Noisy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        train_one_epoch(model, optimizer, loader([1.0, 2.0]), "cpu", epoch, scheduler=constant(optimizer), seed=4)
    assert model.value.item() != results[0]  # control: another seed is another run


def test_print_freq_prints_and_piped_runs_are_quiet_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0] * 5), "cpu", 0, print_freq=2)
    assert capsys.readouterr().out.count("epoch 0 [") == 3
    train_one_epoch(model, optimizer, loader([1.0] * 5), "cpu", 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
