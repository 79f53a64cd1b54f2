"""Learning-rate schedules compared with torch's schedulers, and in closed form."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from detseg.engine.schedule import SCHEDULES, Schedule
from detseg.errors import DataError


def optimizer(lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(make: Any, steps: int) -> list[float]:
    sgd = optimizer()
    scheduler = make(sgd)
    learning_rates = []
    for _ in range(steps):
        learning_rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return learning_rates


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Schedule("constant", 20), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
        (Schedule("step", 20, every=6, gamma=0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 6, 0.5)),
        (
            Schedule("multistep", 20, milestones=(4, 9)),
            lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [4, 9], 0.1),
        ),
        (Schedule("exponential", 20, every=1, gamma=0.9), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
        (Schedule("cosine", 20, floor=0.0), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20)),
    ],
)
def test_equals_torch(schedule: Schedule, reference: Any) -> None:
    assert rates(schedule.attach, 20) == pytest.approx(rates(reference, 20))


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_starts_low_and_rises(name: str) -> None:
    schedule = Schedule(name, 100, warmup_steps=10, every=50, milestones=(50,), gamma=0.9)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(1e-3, rel=0.1)
    assert all(after > before for before, after in itertools.pairwise(factors[:10]))
    assert max(factors) <= 1.0


def test_a_schedule_attached_in_the_middle_has_the_rates_of_the_whole_run() -> None:
    schedule = Schedule("cosine", 30, warmup_steps=5)
    expected = rates(schedule.attach, 30)
    assert rates(lambda sgd: schedule.attach(sgd, 12), 18) == expected[12:]
    assert rates(schedule.attach, 18) != expected[12:]  # control: from step 0 they differ


def test_unknown_name() -> None:
    with pytest.raises(DataError, match="cosine"):
        Schedule("linear", 10)
