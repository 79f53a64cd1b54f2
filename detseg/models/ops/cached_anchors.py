"""Anchors that are made once for each size of the images, and not anew at every step."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

__all__ = ["KeptAnchors"]

MOST = 8
"""Sizes that are remembered: 1 MB each for 400 x 500 pixels, 4 MB for 800 x 1333."""


class KeptAnchors(AnchorGenerator):
    """torchvision's anchors; those of the last few sizes are kept. They are shared: nobody may write into them."""

    def __init__(self, sizes: tuple[tuple[int, ...], ...], aspect_ratios: tuple[tuple[float, ...], ...]) -> None:
        super().__init__(sizes, aspect_ratios)
        self._kept: dict[tuple[object, ...], Tensor] = {}

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            made: list[Tensor] = super().forward(image_list, feature_maps)
            return made
        first, sizes = feature_maps[0], tuple(one.shape[-2:] for one in feature_maps)
        key = (sizes, image_list.tensors.shape[-2:], first.dtype, first.device)
        anchors = self._kept.pop(key, None)
        if anchors is None:
            single = ImageList(image_list.tensors, image_list.image_sizes[:1])
            anchors = super().forward(single, feature_maps)[0]
        self._kept[key] = anchors  # the last used is the last to go
        if len(self._kept) > MOST:
            del self._kept[next(iter(self._kept))]
        return [anchors] * len(image_list.image_sizes)
