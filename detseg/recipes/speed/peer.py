"""torchvision's own detector with the weights, anchors and samples of one of ours: what it is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.misc import FrozenBatchNorm2d

from detseg.models import Detector
from detseg.models.build import architecture_of


def plain_peer(model: Detector, size_hw: tuple[int, int]) -> Any:
    """A plain torchvision ``FasterRCNN`` or ``MaskRCNN`` with a ResNet, all of it learning.

    Args:
        model: of a ResNet-FPN architecture with frozen norm layers.
        size_hw: of its input, which is not resized in training.
    """
    description = model.description
    backbone = resnet_fpn_backbone(
        backbone_name=architecture_of(description.arch).body,
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=5,
    )
    for module in backbone.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = description.norm_eps
    sizes = model.rpn.anchor_generator.sizes
    family = MaskRCNN if description.task == "segment" else FasterRCNN
    peer = family(
        backbone,
        num_classes=description.class_map.num_classes,
        min_size=min(size_hw),
        max_size=max(size_hw),
        image_mean=list(description.preprocessing.mean),
        image_std=list(description.preprocessing.std),
        rpn_anchor_generator=AnchorGenerator(sizes, (description.anchor_ratios,) * len(sizes)),
        rpn_pre_nms_top_n_train=description.rpn_pre_nms_top_n[0],
        rpn_pre_nms_top_n_test=description.rpn_pre_nms_top_n[1],
        rpn_post_nms_top_n_train=description.rpn_post_nms_top_n[0],
        rpn_post_nms_top_n_test=description.rpn_post_nms_top_n[1],
        rpn_score_thresh=description.rpn_score_threshold,
        box_batch_size_per_image=description.rois_per_image,
        _skip_resize=True,  # it would draw a size, and with that other anchors and RoIs than ours
    )
    peer.load_state_dict(model.state_dict())
    return peer.to(next(model.parameters()).device, memory_format=torch.contiguous_format)
