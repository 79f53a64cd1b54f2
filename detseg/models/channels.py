"""The memory format of maps on a CPU: all numbers of a pixel side by side."""

from __future__ import annotations

import torch
from torch import Tensor


def channels_last(maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same maps [N, C, h, w] with channels last in memory where they are on a CPU; free for those that are already.

    Convolutions keep the format of what they are given. In this one they are faster on a CPU, and a RoI reads the
    channels of a pixel in one go. Without gradients maps stay as they are: the format moves the last bits, and what is
    predicted, or kept of frozen parts, is what torchvision's modules give.
    """
    if not torch.is_grad_enabled() or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return maps
    return {
        name: one.contiguous(memory_format=torch.channels_last) if one.device.type == "cpu" and one.ndim == 4 else one
        for name, one in maps.items()
    }
