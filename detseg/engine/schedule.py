"""Learning-rate schedules in closed form: the rate of a step depends on the step's number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from detseg.errors import DataError

SCHEDULES = ("constant", "step", "multistep", "exponential", "cosine")


@dataclass(frozen=True)
class Schedule:
    """Factor on the base rate.

    Attributes:
        name: "constant"; "step": times ``gamma`` every ``every`` steps; "multistep": times ``gamma`` at each of
            ``milestones``; "exponential": ``gamma ** (step / every)``; "cosine": half a cosine from 1 to ``floor``.
        total_steps: updates in the whole run.
        warmup_steps: linear rise from 1/1000 to 1 at the beginning, multiplied with the rest.
        every: steps of one period (usually an epoch or several).
        milestones: step numbers, ascending.
        gamma: factor in (0, 1].
        floor: last factor of the cosine.
    """

    name: str
    total_steps: int
    warmup_steps: int = 0
    every: int = 1
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    floor: float = 0.01

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise DataError(f"schedule {self.name!r} is not known; known are {', '.join(SCHEDULES)}")

    def factor(self, step: int) -> float:
        """Factor on the base rate at update ``step`` (from 0)."""
        warm = min(1.0, 1e-3 + (1 - 1e-3) * step / self.warmup_steps) if self.warmup_steps else 1.0
        return warm * self._decay(step)

    def _decay(self, step: int) -> float:
        if self.name == "step":
            return self.gamma ** (step // self.every)
        if self.name == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.name == "exponential":
            return self.gamma ** (step / self.every)
        if self.name == "cosine":
            after_warmup = max(1, self.total_steps - self.warmup_steps)
            done = min(1.0, max(0, step - self.warmup_steps) / after_warmup)
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done))
        return 1.0

    def attach(self, optimizer: torch.optim.Optimizer, step: int = 0) -> torch.optim.lr_scheduler.LambdaLR:
        """A torch scheduler that stands before update ``step``; call its ``step()`` after every update."""
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor, last_epoch=step - 1)
