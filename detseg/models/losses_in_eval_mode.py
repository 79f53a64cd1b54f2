"""Compute a validation loss with models that return losses only in training mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def losses_in_eval_mode(model: nn.Module, *, gradients: bool = False) -> Iterator[nn.Module]:
    """Context manager in which ``model(images, targets)`` returns losses as in training, without changing the model.

    Norm layers use their stored statistics, dropout is disabled, and gradients are computed only with ``gradients``. At
    the end, also after an error, every module is set back to its previous mode. Works for this project's models and for
    torchvision's detectors.

    Detectors sample anchors and RoIs with torch's global generator: for comparable numbers the caller seeds it before
    and restores it afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        for module in model.modules():
            # The mode of a container selects losses or predictions; norm layers and dropout have no children. (But
            # attention layers apply dropout themselves, and timm's norm layers contain their activation.)
            if not any(True for _ in module.children()) or isinstance(module, (nn.MultiheadAttention, _NormBase)):
                module.training = False
        with torch.set_grad_enabled(gradients):
            yield model
    finally:
        for module, mode in modes:
            module.training = mode
