"""Replace parts of a torchvision R-CNN by faster ones with equal results."""

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

CACHED_SIZES = 8
"""Number of image sizes in the cache: 1 MB each for 400 x 500 pixels, 4 MB for 800 x 1333."""


class CachedAnchorGenerator(AnchorGenerator):
    """torchvision's anchors, cached for the last few sizes. They are shared and must not be modified in place."""

    def __init__(self, sizes: tuple[tuple[int, ...], ...], aspect_ratios: tuple[tuple[float, ...], ...]) -> None:
        super().__init__(sizes, aspect_ratios)
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            uncached: list[Tensor] = super().forward(image_list, feature_maps)
            return uncached
        first, sizes = feature_maps[0], tuple(feature_map.shape[-2:] for feature_map in feature_maps)
        key = (sizes, image_list.tensors.shape[-2:], first.dtype, first.device)
        anchors = self._cache.pop(key, None)
        if anchors is None:
            single = ImageList(image_list.tensors, image_list.image_sizes[:1])
            anchors = super().forward(single, feature_maps)[0]
        self._cache[key] = anchors  # last in order of use, so removed last
        if len(self._cache) > CACHED_SIZES:
            del self._cache[next(iter(self._cache))]
        return [anchors] * len(image_list.image_sizes)


def use_fast_ops(rcnn: Any, mask_rois_per_image: int | None) -> None:
    """Skip the work of a training step that its losses do not need; results and all state-dict names are unchanged."""
    anchors = rcnn.rpn.anchor_generator
    rcnn.rpn.anchor_generator = CachedAnchorGenerator(anchors.sizes, anchors.aspect_ratios)
    rcnn.rpn, rcnn.roi_heads = SampledRPN.like(rcnn.rpn), TrainingRoIHeads.like(rcnn.roi_heads)
    rcnn.roi_heads.mask_rois_per_image = mask_rois_per_image
    fold_norms(rcnn.backbone)
    for part in (rcnn.backbone.body, rcnn.backbone.fpn):
        compute_channels_last(part)
