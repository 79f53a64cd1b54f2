"""The memory format of maps on a CPU: all numbers of a pixel side by side.

Convolutions keep the format of what they are given, and in this one they are faster on a CPU, those with a group for
each channel ten times. A RoI reads the channels of a pixel in one go. The format moves the last bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["channels_last", "compute_channels_last"]


def channels_last(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same maps [N, C, h, w] with channels last in memory where they are on a CPU; free for those that are already.

    Without gradients maps stay as they are: the heads then predict what torchvision's give, bit for bit.
    """
    return _all_in(maps, torch.channels_last) if torch.is_grad_enabled() else maps


def compute_channels_last(part: nn.Module) -> None:
    """Let a backbone or a neck compute with channels last.

    Maps come out in this format only if the part learns from them. Otherwise they come out as torchvision's do, so that
    what comes next sees the same whether they were kept or have just been computed.
    """
    part.register_forward_pre_hook(_before)
    part.register_forward_hook(_after)


def _before(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_all_in(one, torch.channels_last) for one in inputs)


def _after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in part.parameters()):
        return output
    return _all_in(output, torch.contiguous_format)


def _all_in(given: Any, layout: torch.memory_format) -> Any:
    """A tensor or a dict of them in this format where they are maps on a CPU."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return given
    if isinstance(given, dict):
        return type(given)((name, _all_in(one, layout)) for name, one in given.items())
    return given.contiguous(memory_format=layout) if given.device.type == "cpu" and given.ndim == 4 else given
