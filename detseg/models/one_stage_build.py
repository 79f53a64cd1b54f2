"""Build one-stage detectors from their description, and convert tensor names of other weight files."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteFeatureExtractorMobileNet, SSDLiteHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from detseg.errors import DataError
from detseg.models.architectures import Architecture
from detseg.models.backbones import BACKBONES, BackboneSpec, NormLayer, Stages, build_backbone, norm_layer
from detseg.models.description import ModelDescription
from detseg.models.one_stage import OneStageDetector

SSD_MOMENTUM = 0.03
"""Momentum of SSDLite's norm statistics, as in torchvision."""

SPLIT_BLOCK = 13
"""The block of MobileNetV3 whose expansion is the end of the first part of SSDLite's backbone, and its first map."""


def build_one_stage(architecture: Architecture, description: ModelDescription) -> OneStageDetector:
    """Build the one-stage detector of ``description``, with torchvision's random initialization.

    Raises:
        DataError: the number of anchor sizes differs from the number of maps.
    """
    spec = BACKBONES[architecture.backbone]
    if architecture.family == "ssdlite":
        return OneStageDetector(_ssdlite(spec, description), _ssd_stages(spec), description)
    build = _retinanet if architecture.family == "retinanet" else _fcos
    network = build(architecture, spec, description)
    present = set(dict(network.backbone.body.named_children()))
    stages = [tuple(f"backbone.body.{name}" for name in stage if name in present) for stage in spec.stages]
    return OneStageDetector(network, tuple(stage for stage in stages if stage), description)


def _retinanet(architecture: Architecture, spec: BackboneSpec, description: ModelDescription) -> Any:
    anchors = AnchorGenerator(*_anchor_settings(architecture, description))
    backbone = _backbone(architecture, spec, description)
    # Without norm layers, four layers initialized with a standard deviation of 0.01 reduce the signal to almost zero.
    # Published weights are trained already, but a randomly initialized head learned nothing in the few steps that a
    # small data set allows.
    norms = architecture.improved or architecture.coco is None
    head = RetinaNetHead(
        architecture.neck_channels,
        anchors.num_anchors_per_location()[0],
        description.class_map.num_classes,
        norm_layer=partial(nn.GroupNorm, 32) if norms else None,
    )
    if architecture.improved:
        head.regression_head._loss_type = "giou"
    return RetinaNet(
        backbone,
        description.class_map.num_classes,
        anchor_generator=anchors,
        head=head,
        score_thresh=description.score_threshold,
        nms_thresh=description.nms_threshold,
        detections_per_img=description.detections_per_image,
        topk_candidates=description.topk_candidates,
    )


def _fcos(architecture: Architecture, spec: BackboneSpec, description: ModelDescription) -> Any:
    return FCOS(
        _backbone(architecture, spec, description),
        description.class_map.num_classes,
        score_thresh=description.score_threshold,
        nms_thresh=description.nms_threshold,
        detections_per_img=description.detections_per_image,
        topk_candidates=description.topk_candidates,
    )


def _backbone(architecture: Architecture, spec: BackboneSpec, description: ModelDescription) -> Any:
    """Build backbone and FPN from stride 8 (the finest map would have most of the anchors), and two coarser maps."""
    channels = architecture.neck_channels
    last = list(spec.levels.values())[-1] if architecture.improved else channels
    return build_backbone(
        spec,
        norm_layer(description.norm, description.norm_eps),
        channels=channels,
        first_level=1,
        extra_blocks=LastLevelP6P7(last, channels),
    )


def _anchor_settings(
    architecture: Architecture, description: ModelDescription
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[float, ...], ...]]:
    default_sizes = architecture.anchor_sizes
    sizes = description.anchor_sizes or default_sizes
    if len(sizes) != len(default_sizes) or len({len(level) for level in sizes}) != 1:
        raise DataError(
            f"{description.arch}: anchor sizes {sizes} do not match its {len(default_sizes)} maps; give every map the "
            f"same number of sizes, such as {default_sizes}"
        )
    return sizes, (description.anchor_ratios,) * len(sizes)


class SteadyBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that uses its stored statistics if a batch has a single value per channel.

    SSDLite's last map has one pixel, so a batch of one image, such as the last of an epoch, would raise an error.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.numel() != input.shape[1]:
            return super().forward(input)
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def _ssdlite(spec: BackboneSpec, description: ModelDescription) -> Any:
    norm: NormLayer = norm_layer(description.norm, description.norm_eps)
    if description.norm == "batch":
        norm = partial(SteadyBatchNorm2d, eps=description.norm_eps, momentum=SSD_MOMENTUM)
    network: Any = spec.build(weights=None, norm_layer=norm, reduced_tail=description.reduced_tail)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # torchvision's random initialization
            nn.init.normal_(layer.weight, std=0.03)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    backbone: Any = SSDLiteFeatureExtractorMobileNet(network.features, SPLIT_BLOCK, norm)
    boxes = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    channels = [block[-1].out_channels for block in (*backbone.features, *backbone.extra)]
    num_classes = description.class_map.num_classes
    size = description.preprocessing.min_size
    return SSD(
        backbone,
        boxes,
        (size, size),
        num_classes,
        head=SSDLiteHead(channels, boxes.num_anchors_per_location(), num_classes, norm),
        score_thresh=description.score_threshold,
        nms_thresh=description.nms_threshold,
        detections_per_img=description.detections_per_image,
        topk_candidates=description.topk_candidates,
    )


def _ssd_stages(spec: BackboneSpec) -> Stages:
    """Return the backbone's stages with SSDLite's module names, which divide block 13 into two modules."""
    return tuple(tuple(name for index in stage for name in _ssd_modules(int(index))) for stage in spec.stages)


def _ssd_modules(index: int) -> tuple[str, ...]:
    first = (f"backbone.features.0.{index}",) if index <= SPLIT_BLOCK else ()
    return (*first, f"backbone.features.1.{index - SPLIT_BLOCK}") if index >= SPLIT_BLOCK else first


def is_reduced_tail(state: dict[str, Tensor]) -> bool:
    """Return whether a state dict is from an SSDLite with MobileNetV3's reduced tail: its last map has 480 channels."""
    last = state.get("backbone.features.1.3.0.weight")
    return last is not None and last.shape[0] == 480


def ssd_name(name: str) -> str:
    """Convert a tensor name of a MobileNetV3 classifier, such as ``features.14.block.0.0.weight``, to SSDLite's."""
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if not match:
        return name
    index, rest = int(match[1]), match[2]
    if index < SPLIT_BLOCK:
        return f"backbone.features.0.{index}.{rest}"
    if index > SPLIT_BLOCK:
        return f"backbone.features.1.{index - SPLIT_BLOCK}.{rest}"
    rest = rest.removeprefix("block.")
    return f"backbone.features.0.13.{rest[2:]}" if rest.startswith("0.") else f"backbone.features.1.0.{rest}"


_OLD_HEAD_NAME = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$")


def retinanet_name(name: str) -> str:
    """Convert a RetinaNet head's tensor name from before torchvision 0.12, as in the published file, to today's."""
    return _OLD_HEAD_NAME.sub(lambda match: f"{match[1]}.{int(match[2]) // 2}.0.{match[3]}", name)
