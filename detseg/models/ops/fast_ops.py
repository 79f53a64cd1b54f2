"""Replace the parts of a torchvision R-CNN by faster ones with equal results."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from detseg.models.heads import TrainingRoIHeads
from detseg.models.ops.folded_norm import fold_norms
from detseg.models.ops.memory_format import compute_channels_last
from detseg.models.ops.sampled_rpn import SampledRPN

MOST = 8
"""Sizes that are remembered: 1 MB each for 400 x 500 pixels, 4 MB for 800 x 1333."""


class CachedAnchorGenerator(AnchorGenerator):
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


def use_fast_ops(rcnn: Any, mask_rois_per_image: int | None) -> None:
    """Leave out of a step what its losses do not need; nothing is learned otherwise, and all names stay."""
    kept = CachedAnchorGenerator(rcnn.rpn.anchor_generator.sizes, rcnn.rpn.anchor_generator.aspect_ratios)
    rcnn.rpn.anchor_generator = kept
    rcnn.rpn, rcnn.roi_heads = SampledRPN.like(rcnn.rpn), TrainingRoIHeads.like(rcnn.roi_heads)
    rcnn.roi_heads.mask_rois_per_image = mask_rois_per_image
    fold_norms(rcnn.backbone)
    for part in (rcnn.backbone.body, rcnn.backbone.fpn):
        compute_channels_last(part)
