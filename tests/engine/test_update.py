"""Each part of an optimizer update by itself, on a model of a few weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detseg.engine.ema import Ema
from detseg.engine.nonfinite import Batch, NotFinite
from detseg.engine.precision import Precision
from detseg.engine.update import Update, forward, weighted
from detseg.runtime.processes import Processes
from detseg.runtime.signals import StopRequest

CPU = torch.device("cpu")
RATE = 0.1


class Net(nn.Module):
    """A norm layer whose output is not used, and a linear layer; counts images brighter than 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(12)
        self.linear = nn.Linear(12, 1)
        self.correct_counts: dict[str, Tensor] = {}

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        pixels = torch.stack([image.flatten() for image in images])
        self.norm(pixels)
        correct = (pixels.mean(dim=1) > 1).sum()
        self.correct_counts = {"accuracy": torch.stack([correct, torch.tensor(len(images))])}
        return {"loss_square": self.linear(pixels).square().mean(), "loss_weight": self.linear.weight.abs().mean()}


class InfiniteGradient(Net):
    """The loss is finite, but its gradient is not."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {"loss": super().forward(images, targets)["loss_square"] * 0 + (self.linear.bias * 0).sqrt().sum()}


def batch(*values: float, index: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(index)
    images = [value + torch.rand((3, 2, 2), generator=generator) for value in values]
    return Batch(images, [{"image_id": torch.tensor(10 * index + i)} for i in range(len(values))], index)


def new_update(model: nn.Module, **options: Any) -> Update:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    precision = Precision(options.pop("precision", "fp32"), CPU)
    return Update(model, optimizer, CPU, 0, precision, Processes(), StopRequest(), {1: "cat.jpg"}, **options)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def statistics(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "running" in name or "tracked" in name}


def test_two_accumulated_batches_have_the_gradients_of_one_batch_of_both() -> None:
    first, second = batch(1.0, 2.0), batch(-1.0, 4.0, index=1)
    both = Batch([*first.images, *second.images], [*first.targets, *second.targets], 0)
    accumulated, one, control = Net(), Net(), Net()
    update = new_update(accumulated)
    update.begin()
    update.add(first, 2, last=False)
    update.add(second, 2, last=True)
    whole = new_update(one)
    whole.begin()
    whole.add(both, 1, last=True)
    summed = new_update(control)
    summed.begin()
    summed.add(first, 1, last=False)
    summed.add(second, 1, last=True)
    for name, gradient in gradients(one).items():
        torch.testing.assert_close(gradients(accumulated)[name], gradient)
        torch.testing.assert_close(gradients(control)[name], 2 * gradient)  # control: without the division, their sum
    assert update.images == whole.images == 4
    assert update.means() == pytest.approx(whole.means())


def test_begin_clears_the_previous_update() -> None:
    model = Net()
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    once = gradients(model)
    update.add(batch(1.0, 2.0), 1, last=True)
    assert not equal(gradients(model), once), "control: without begin, gradients add up"
    update.begin()
    assert (gradients(model), update.batches, update.correct_counts) == ({}, [], {})
    update.add(batch(1.0, 2.0), 1, last=True)
    assert equal(gradients(model), once)
    assert (update.images, update.correct_counts) == (2, {"accuracy": (2, 2)})


def test_a_loss_that_is_not_finite_raises_before_the_weights_change() -> None:
    model = Net()
    before = state(model)
    update = new_update(model)
    update.begin()
    with pytest.raises(NotFinite, match=r"loss_square nan.*image_id 0, cat\.jpg;") as caught:
        update.add(batch(1.0, math.inf), 1, last=True)
    assert caught.value.batches[0].index == 0
    assert gradients(model) == {}, "there was no backward pass"
    assert equal(dict(model.named_parameters()), {n: before[n] for n, _ in model.named_parameters()})
    finite = Net()  # control: the same calls with a finite batch
    update = new_update(finite)
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    update.check_gradients(None)
    update.apply(None)
    assert not torch.equal(finite.linear.weight, before["linear.weight"])


def test_a_gradient_that_is_not_finite_raises_before_the_weights_change() -> None:
    model = InfiniteGradient()
    before = state(model)
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    with pytest.raises(NotFinite, match="gradient norm nan"):
        update.check_gradients(1.0)
    assert torch.equal(model.linear.bias, before["linear.bias"])
    update.apply(None)
    assert not model.linear.bias.isfinite().all(), "control: without the check, the weight is lost"


def test_float16_expects_an_overflow_while_it_adjusts_its_scale() -> None:
    model = InfiniteGradient()
    before = state(model)
    update = new_update(model, precision="fp16")
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    update.check_gradients(1.0)
    update.apply(None)
    assert torch.equal(model.linear.bias, before["linear.bias"]), "the scaler skips the update"


def test_undo_restores_norm_statistics_and_clears_gradients() -> None:
    model = Net()
    before = state(model)
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, 2.0), 2, last=False)
    with pytest.raises(NotFinite):
        update.add(batch(1.0, math.nan, index=1), 2, last=True)
    assert not equal(statistics(state(model)), statistics(before)), "control: the forward passes changed them"
    assert gradients(model), "control: the first batch has gradients"
    update.undo()
    assert equal(state(model), before)
    assert gradients(model) == {}


def test_restore_statistics_keeps_gradients() -> None:
    model = Net()
    before = state(model)
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    update.restore_statistics()
    assert equal(state(model), before)
    assert gradients(model)


def test_frozen_statistics_are_not_copied() -> None:
    model = Net()
    model.norm.eval()
    update = new_update(model)
    update.begin()
    assert update._statistics == []
    model.norm.train()
    update.begin()
    assert len(update._statistics) == 3, "control: mean, variance and number of batches"


def test_apply_updates_the_weights_and_their_average() -> None:
    model = Net()
    before = state(model)
    ema = Ema(model, 0.5)
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    update.check_gradients(None)
    gradient = gradients(model)["linear.weight"]
    assert equal(ema.weights, before), "control: nothing is averaged before apply"
    update.apply(ema)
    torch.testing.assert_close(model.linear.weight.detach(), before["linear.weight"] - RATE * gradient)
    decay = min(0.5, 2 / 11)
    expected = decay * before["linear.weight"] + (1 - decay) * model.linear.weight.detach()
    torch.testing.assert_close(ema.weights["linear.weight"], expected)
    assert ema.updates == 1


@pytest.mark.parametrize(("limit", "factor"), [(0.5, None), (None, 1.0), (1e9, 1.0)])
def test_gradients_are_clipped_to_the_limit(limit: float | None, factor: float | None) -> None:
    model = Net()
    update = new_update(model)
    update.begin()
    update.add(batch(3.0, 5.0), 1, last=True)
    norm = torch.stack([gradient.norm() for gradient in gradients(model).values()]).norm().item()
    assert norm > 1, "control: the limit is below the norm"
    update.check_gradients(limit)
    clipped = torch.stack([gradient.norm() for gradient in gradients(model).values()]).norm().item()
    assert clipped == pytest.approx(0.5 if factor is None else norm, rel=1e-5)


def test_loss_weights_change_the_total_and_the_gradients_but_not_the_reported_terms() -> None:
    plain, other = Net(), Net()
    values, loss = forward(plain, batch(1.0, 2.0), CPU, Precision("fp32", CPU))
    weighted_values, weighted_loss = forward(
        other, batch(1.0, 2.0), CPU, Precision("fp32", CPU), {"loss_square": 3.0, "loss_weight": 0.0}
    )
    assert weighted_values["loss_square"] == values["loss_square"]
    assert weighted_values["loss_weight"] == values["loss_weight"] > 0
    assert weighted_loss.item() == weighted_values["loss"] == pytest.approx(3 * values["loss_square"])
    assert loss.item() == pytest.approx(values["loss_square"] + values["loss_weight"])
    update = new_update(Net(), loss_weights={"loss_square": 3.0, "loss_weight": 0.0})
    update.begin()
    update.add(batch(1.0, 2.0), 1, last=True)
    weighted_loss.backward()
    assert equal(gradients(update.model), gradients(other))
    loss.backward()
    assert not equal(gradients(update.model), gradients(plain)), "control"


def test_without_loss_weights_the_losses_are_the_same_objects() -> None:
    losses = {"loss_a": torch.tensor(1.0)}
    assert weighted(losses, None) is losses
    assert weighted(losses, {}) is losses
    assert weighted({"loss_a": 2.0, "loss_b": 1.0}, {"loss_a": 3.0}) == {"loss_a": 6.0, "loss_b": 1.0}


def test_correct_predictions_are_summed_over_the_batches_of_an_update() -> None:
    model = Net()
    update = new_update(model)
    update.begin()
    update.add(batch(1.0, -3.0), 2, last=False)
    update.add(batch(2.0, 3.0, -1.0, index=1), 2, last=True)
    assert update.correct_counts == {"accuracy": (3, 5)}
    del model.correct_counts
    model.forward = lambda images, targets: {"loss": model.linear.weight.sum()}  # type: ignore[method-assign,assignment]
    update.begin()
    update.add(batch(1.0, -3.0), 1, last=True)
    assert update.correct_counts == {}, "control: a model that does not count"
