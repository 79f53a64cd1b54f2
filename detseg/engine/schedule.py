"""Learning-rate schedules in closed form: the rate of a step depends only on the step number."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from detseg.errors import DataError

SCHEDULES = ("constant", "step", "multistep", "exponential", "cosine")


@dataclass(frozen=True)
class Schedule:
    """Multiplier of the base learning rate.

    Attributes:
        name: "constant"; "step": times ``gamma`` every ``every`` steps; "multistep": times ``gamma`` at each of
            ``milestones``; "exponential": ``gamma ** (step / every)``; "cosine": half a cosine from 1 to ``floor``.
        total_steps: optimizer updates in the whole run.
        warmup_steps: length of the linear warmup from 1/1000 to 1, which is multiplied with the schedule.
        every: period in steps (usually one or several epochs).
        milestones: step numbers, ascending.
        gamma: decay factor in (0, 1].
        floor: final multiplier of the cosine.
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
            raise DataError(f"unknown schedule {self.name!r}; choose one of {', '.join(SCHEDULES)}")

    def factor(self, step: int) -> float:
        """Multiplier of the base learning rate at update ``step`` (from 0)."""
        warmup = min(1.0, 1e-3 + (1 - 1e-3) * step / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._decay(step)

    def _decay(self, step: int) -> float:
        if self.name == "step":
            return self.gamma ** (step // self.every)
        if self.name == "multistep":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        if self.name == "exponential":
            return self.gamma ** (step / self.every)
        if self.name == "cosine":
            after_warmup = max(1, self.total_steps - self.warmup_steps)
            progress = min(1.0, max(0, step - self.warmup_steps) / after_warmup)
            return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    def attach(self, optimizer: torch.optim.Optimizer, step: int = 0) -> torch.optim.lr_scheduler.LambdaLR:
        """Create a torch scheduler positioned before update ``step``; call its ``step()`` after every update."""
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor, last_epoch=step - 1)
