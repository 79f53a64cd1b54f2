"""Set the memory format of feature maps on a CPU to channels last: all channels of a pixel are contiguous.

Convolutions preserve the format of their input, and with channels last they are faster on a CPU, depthwise ones ten
times. RoIAlign reads all channels of a pixel at once. The format changes the last bits of results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["channels_last", "compute_channels_last"]


def channels_last(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert maps [N, C, h, w] on a CPU to channels last; costs nothing for maps that already have this format.

    Without gradients maps are unchanged: the predictions of the heads are then bit-equal to torchvision's.
    """
    return _convert(maps, torch.channels_last) if torch.is_grad_enabled() else maps


def compute_channels_last(part: nn.Module) -> None:
    """Make a backbone or a neck compute with channels last.

    Its outputs have this format only if the part is trained. Otherwise they have torchvision's format, so that cached
    and newly computed maps are the same for the next part.
    """
    part.register_forward_pre_hook(_before)
    part.register_forward_hook(_after)


def _before(part: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_convert(value, torch.channels_last) for value in inputs)


def _after(part: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in part.parameters()):
        return output
    return _convert(output, torch.contiguous_format)


def _convert(value: Any, memory_format: torch.memory_format) -> Any:
    """Convert a tensor, or a dict of tensors, to this format if it is a 4-d tensor on a CPU."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return value
    if isinstance(value, dict):
        return type(value)((name, _convert(tensor, memory_format)) for name, tensor in value.items())
    is_map = value.device.type == "cpu" and value.ndim == 4
    return value.contiguous(memory_format=memory_format) if is_map else value
