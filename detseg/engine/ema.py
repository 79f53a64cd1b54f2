"""Exponential moving average (EMA) of a model's weights: less noisy than the last step's weights, and often better."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average, stored next to the raw weights.

    After update n (from 1) the average of weight w becomes ``d * average + (1 - d) * w`` with
    ``d = min(decay, (1 + n) / (10 + n))``, so that the random initialization is soon forgotten (as in TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``).
    Buffers (norm statistics) and integers are copied. Weights that are not finite are never added.

    Attributes:
        weights: state dict of the average.
        updates: number of updates averaged so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._averaged = {name for name, _ in model.named_parameters()} & set(self.weights)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of ``model`` after one more optimizer update, if all of them are finite."""
        if not is_finite(model):
            return
        self.updates += 1
        new_weight = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, tensor in model.state_dict().items():
            if name in self._averaged:
                self.weights[name].lerp_(tensor, new_weight)
            else:
                self.weights[name].copy_(tensor)

    def restore(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Continue from a saved average."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
        self.updates = updates


@torch.no_grad()
def is_finite(model: nn.Module) -> bool:
    """Whether every parameter and buffer of ``model`` is finite."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point() and tensor.numel()]
    maxima = torch._foreach_norm(tensors, float("inf"))  # the maximum of absolute values propagates NaN and inf
    return bool(torch.stack([maximum.float() for maximum in maxima]).isfinite().all())
