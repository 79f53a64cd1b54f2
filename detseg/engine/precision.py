"""Mixed precision: autocast to 16 bits, and the loss scaling that float16 needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from detseg.errors import DataError

Name = Literal["fp32", "bf16", "fp16"]

MAX_OVERFLOWS = 30
"""Consecutive overflows that are explained by a loss scale that is still too high: 30 halvings reach 1/16384 from
65536."""


class Precision:
    """Precision of a training step: "fp32", "bf16", or "fp16" with loss scaling, so that small gradients do not vanish.

    Weights, optimizer state and norm statistics stay float32 (Micikevicius et al. 2018, "Mixed Precision Training").
    """

    def __init__(self, name: Name, device: torch.device) -> None:
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        self._overflows = 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Context manager for the forward pass."""
        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.name != "fp32")

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Unscale the gradients; call it before they are clipped or checked."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights; with "fp16", the update is skipped and the scale lowered if a gradient overflowed."""
        if self.scaler is None:
            optimizer.step()
            return
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        self._overflows = self._overflows + 1 if self.scaler.get_scale() < scale else 0

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite is expected, because the loss scale is still being adjusted."""
        return self.scaler is not None and self._overflows < MAX_OVERFLOWS

    def state(self) -> dict[str, Any]:
        """State for a checkpoint; numbers only."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)


def as_precision(precision: Name | Precision | None, device: torch.device) -> Precision:
    """Return a :class:`Precision` for its name, for None ("fp32"), or itself.

    Raises:
        DataError: not a name of a precision.
    """
    if isinstance(precision, Precision):
        return precision
    name = precision or "fp32"
    if name not in get_args(Name):
        raise DataError(f"precision {name!r} is not known; use {', '.join(get_args(Name))}, or a Precision")
    return Precision(name, device)
