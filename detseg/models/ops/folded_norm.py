"""Fold norm layers with fixed statistics into the preceding convolution, which saves one pass over large maps.

Such a layer is ``x * scale + shift``, so ``norm(conv(x))`` is a convolution with scaled weights. This applies to frozen
norm layers, and to BatchNorm in eval mode, whose weight and bias may still be trainable. Weights and constants keep
their modules and names, and are trained and loaded as before.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

__all__ = ["FoldedConv2d", "FoldedNorm", "fold_norms"]

IN_ORDER = (nn.Sequential, BasicBlock, Bottleneck, ResNet, IntermediateLayerGetter)
"""Modules that apply a norm layer directly to the output of the convolution that precedes it in their children."""


class FoldedConv2d(nn.Conv2d):
    """A convolution with the scale and shift of ``norms[0]``, which is still a child of another module."""

    norms: tuple[Any]  # FrozenBatchNorm2d or BatchNorm2d; torchvision has no type annotations

    def forward(self, input: Tensor) -> Tensor:
        norm = self.norms[0]
        if _uses_batch_statistics(norm):
            return super().forward(input)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(input, self.weight * scale[:, None, None, None], shift)


class FoldedNorm(FrozenBatchNorm2d):
    """A frozen norm layer that is folded into the preceding convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class FoldedBatchNorm(nn.BatchNorm2d):
    """BatchNorm that is folded into the preceding convolution in eval mode."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if self.training else input


FOLDED: dict[type[nn.Module], type[nn.Module]] = {FrozenBatchNorm2d: FoldedNorm, nn.BatchNorm2d: FoldedBatchNorm}


def _uses_batch_statistics(norm: nn.Module) -> bool:
    return norm.training and isinstance(norm, nn.BatchNorm2d)


def fold_norms(network: nn.Module) -> None:
    """Fold every norm layer of ``network`` that follows a convolution into it, in place."""
    for module in list(network.modules()):
        if isinstance(module, IN_ORDER):
            for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
                if type(conv) is nn.Conv2d and type(norm) in FOLDED:
                    _fold(module, name, norm_name)


def _fold(parent: nn.Module, name: str, norm_name: str) -> None:
    # Any: nn.Module's annotations allow only tensors and modules as attributes
    conv: Any = parent.get_submodule(name)
    norm: Any = parent.get_submodule(norm_name)
    conv.__class__, norm.__class__ = FoldedConv2d, FOLDED[type(norm)]
    conv.norms = (norm,)  # in a tuple, so that it does not become a child of the convolution
