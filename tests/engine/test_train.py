"""The training loop on a model that is small enough to verify by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detseg.engine import Ema, Precision
from detseg.engine.nonfinite import NotFinite
from detseg.engine.precision import MAX_OVERFLOWS
from detseg.engine.train import train_one_epoch, train_steps
from detseg.errors import DataError
from detseg.runtime.reporter import Event, Reporter, silent


class Mean(nn.Module):
    """Learns the mean of all pixels; one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        means = torch.stack([image.mean() for image in images])
        return {"loss_mean": (means - self.value).square().mean(), "loss_zero": self.value * 0.0}


class Noisy(Mean):
    """Samples from the global generator, as detectors do."""

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {"loss": (torch.randn(()) - self.value).square()}


class Product(Mean):
    """A matrix product, which autocast computes in 16 bits; the loss is 12 times the value for images of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        product = images[0].flatten()[None] @ self.value.expand(12, 1)
        self.dtypes.append(product.dtype)
        return {"loss": product.float().sum()}


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
    assert stats.meters["loss"].global_avg == stats.losses["loss"]
    assert list(stats.meters) == ["loss", "loss_mean", "loss_zero"]


def test_gradient_is_clipped() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    train_one_epoch(model, optimizer, loader([100.0]), "cpu", 1, clip_norm=1.0)
    assert model.value.item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_raises_before_the_update_with_the_image_id(value: float) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match=r"loss_mean (nan|inf).*image_id 1;") as caught:
        train_one_epoch(model, optimizer, loader([2.0, value]), "cpu", 1)
    assert "--lr" in str(caught.value)
    assert model.value.item() == pytest.approx(0.4)  # only the first step, which is valid


def test_first_epoch_has_a_warmup_without_a_scheduler_as_in_the_reference() -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0]), "cpu", 0)
    after_one_step = model.value.item()
    assert after_one_step == pytest.approx(0.2)  # a single step has no warmup
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0] * 11), "cpu", 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert model.value.item() < 1 - 0.8**11  # control: the value after 11 steps at the full rate


def test_a_step_uses_the_same_random_numbers_whatever_happened_before() -> None:
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


def test_print_freq_prints_lines_and_without_it_piped_runs_print_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0] * 5), "cpu", 0, print_freq=2)
    assert capsys.readouterr().out.count("epoch 1 [") == 3
    train_one_epoch(model, optimizer, loader([1.0] * 5), "cpu", 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    train_one_epoch(model, optimizer, loader([1.0] * 5), "cpu", 0, print_freq=2, reporter=silent())
    assert capsys.readouterr().out == ""


def test_accumulated_batches_equal_one_larger_batch() -> None:
    values = [1.0, 2.0, 5.0, 8.0, 3.0]
    for accumulate, batch_size in ((2, 2), (1, 4)):
        model = Mean()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        steps = list(train_steps(model, optimizer, loader(values, batch_size), "cpu", 1, accumulate=accumulate))
        assert [step.images for step in steps] == [4, 1]
        assert [step.batches for step in steps] == ([2, 3] if accumulate == 2 else [1, 2])
        first = 0.1 * 2 * 4.0  # the mean of the first four
        assert model.value.item() == pytest.approx(first + 0.1 * 2 * (3.0 - first))
        assert steps[0].losses["loss"] == pytest.approx((1 + 4 + 25 + 64) / 4)


def test_ema_follows_its_formula() -> None:
    model = Mean()
    average = Ema(model, 0.5)
    expected = 0.0
    for update, value in enumerate([4.0, 8.0, -2.0, 6.0], 1):
        with torch.no_grad():
            model.value.fill_(value)
        average.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
        assert average.weights["value"].item() == pytest.approx(expected)
    with torch.no_grad():
        model.value.fill_(float("nan"))
    average.update(model)
    assert average.weights["value"].item() == pytest.approx(expected), "weights that are not finite are not added"
    assert average.updates == 4


def test_computation_in_16_bits_with_float32_weights() -> None:
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
        model = Product()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        precision = Precision(name, torch.device("cpu"))  # type: ignore[arg-type]
        steps = 2 if name == "fp16" else 1  # at a scale of 65536 the first gradient overflows
        list(train_steps(model, optimizer, loader([1.0] * steps), "cpu", 1, precision=precision))
        assert model.dtypes[-1] == dtype
        assert model.value.dtype == torch.float32
        assert model.value.item() == pytest.approx(-6.0)


def test_float16_lowers_its_scale_a_limited_number_of_times_then_reports_the_gradient() -> None:
    class Broken(Mean):
        def forward(self, images: list[torch.Tensor], targets: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            return {"loss": torch.sqrt(self.value)}  # finite at 0, but its gradient is not

    model = Broken()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    precision = Precision("fp16", torch.device("cpu"))
    steps = train_steps(model, optimizer, loader([1.0] * 40), "cpu", 1, precision=precision)
    for _ in range(MAX_OVERFLOWS):
        next(steps)
    with pytest.raises(NotFinite, match="gradient norm"):
        next(steps)
    assert model.value.item() == 0.0


def test_updates_that_are_not_finite_are_skipped_and_their_images_printed(capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    values = [4.0, nan, nan, 4.0, nan, 4.0]
    steps = list(train_steps(model, optimizer, loader(values), "cpu", 1, skip_nonfinite=2, names={1: "cat.jpg"}))
    assert [step.updated for step in steps] == [True, False, False, True, False, True]
    assert model.value.item() == pytest.approx(3.5)
    assert "cat.jpg" in capsys.readouterr().out
    with pytest.raises(NotFinite, match="image_id 2"):
        list(train_steps(model, optimizer, loader(values), "cpu", 1, skip_nonfinite=1))


def test_a_reporter_gets_the_steps_and_a_warning_for_each_skipped_update(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    model, reporter = Mean(), Reporter(events.append)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    list(train_steps(model, optimizer, loader([4.0, float("nan")]), "cpu", 1, skip_nonfinite=1, reporter=reporter))
    assert [event.kind for event in events] == ["warning"]
    assert events.pop().text.startswith("update skipped (1 in a row): ")
    train_one_epoch(model, optimizer, loader([4.0] * 3), "cpu", 1, reporter=reporter)
    assert [event.values["done"] for event in events] == [0, 1, 2, 3, 3]
    assert "loss " in events[1].text
    assert capsys.readouterr().out == ""


def test_an_epoch_with_accumulation_and_an_average() -> None:
    values = [1.0, 2.0, 5.0, 8.0, 3.0]
    accumulated, larger, control = Mean(), Mean(), Mean()
    averages = []
    for model, accumulate, batch_size in ((accumulated, 2, 2), (larger, 1, 4), (control, 1, 2)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        averages.append(Ema(model, 0.5))
        stats = train_one_epoch(
            model, optimizer, loader(values, batch_size), "cpu", 1, accumulate=accumulate, ema=averages[-1]
        )
        assert (stats.steps, stats.images) == ((3, 5) if model is control else (2, 5))
    assert accumulated.value.item() == pytest.approx(larger.value.item())
    assert control.value.item() != pytest.approx(larger.value.item())
    assert averages[0].weights["value"].item() == pytest.approx(averages[1].weights["value"].item())
    assert averages[0].weights["value"].item() != pytest.approx(accumulated.value.item())
    assert [average.updates for average in averages] == [2, 2, 3]


def test_the_warmup_of_the_first_epoch_counts_steps_not_batches() -> None:
    rates = []
    for accumulate in (1, 4):
        model = Mean()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train_one_epoch(model, optimizer, loader([1.0] * 12), "cpu", 0, accumulate=accumulate)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.1])


def test_print_freq_counts_steps(capsys: pytest.CaptureFixture[str]) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_one_epoch(model, optimizer, loader([1.0] * 9), "cpu", 0, print_freq=2, accumulate=2)
    assert [line.split("]")[0] for line in capsys.readouterr().out.splitlines()] == [
        "epoch 1 [2/9", "epoch 1 [6/9", "epoch 1 [9/9",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16", None])
def test_the_precision_of_an_epoch(name: Any) -> None:
    model = Product()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    train_one_epoch(model, optimizer, loader([1.0] * 2), "cpu", 1, precision=name)
    assert set(model.dtypes) == {{"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)}
    assert model.value.item() == pytest.approx(-6.0 if name == "fp16" else -12.0)  # one update of fp16 overflows


def test_a_precision_that_is_passed_keeps_its_scale() -> None:
    scales = []
    for keep in (True, False):
        model = Product()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        precision = Precision("fp16", torch.device("cpu"))
        for epoch in (1, 2):
            argument: Any = precision if keep else "fp16"
            train_one_epoch(model, optimizer, loader([1.0]), "cpu", epoch, precision=argument)
        scales.append(precision.state()["scale"])
    kept, untouched = scales
    assert kept < untouched == 65536


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate 0; it must be at least 1"),
        ({"precision": "fp8"}, "'fp8' is not known; use fp32"),
    ],
)
def test_options_of_an_epoch_that_cannot_work(options: Any, message: str) -> None:
    model = Mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(DataError, match=message):
        train_one_epoch(model, optimizer, loader([1.0]), "cpu", 1, **options)
    assert model.value.item() == 0.0
