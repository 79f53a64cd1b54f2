"""A validation loss from models that only give losses in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def losses_in_eval_mode(model: nn.Module, *, gradients: bool = False) -> Iterator[nn.Module]:
    """Inside, ``model(images, targets)`` gives losses as in training, but nothing in the model changes.

    Norm layers use their stored statistics, dropout lets everything pass, no gradients are computed unless
    ``gradients``. On leaving, every module has the mode that it had before, also after an error. Works for this
    project's models and for torchvision's detectors.

    Detectors draw random anchors and RoIs from torch's global generator: the caller seeds it, for numbers that can be
    compared, and restores it.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        for module in model.modules():
            # Containers choose between losses and predictions by their mode; norm layers and dropout are leaves. (An
            # attention layer applies dropout itself, and timm's norm layers hold their activation.)
            if not any(True for _ in module.children()) or isinstance(module, (nn.MultiheadAttention, _NormBase)):
                module.training = False
        with torch.set_grad_enabled(gradients):
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
