"""The feature extractors: which torchvision network, its stages, and the maps that an FPN takes from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from detseg.preprocess import IMAGENET_MEAN, IMAGENET_STD

Stages = tuple[tuple[str, ...], ...]
NormLayer = Callable[[int], nn.Module]


@dataclass(frozen=True)
class BackboneSpec:
    """One feature extractor.

    Attributes:
        build: torchvision's builder of the whole classification network.
        imagenet: its published ImageNet weights. V1 throughout: the V2 recipes (label smoothing, long schedules) score
            higher on ImageNet but give features that transfer worse while frozen.
        norm_eps: eps of the norm layers that these weights were trained with.
        stages: names of the backbone's modules, stage by stage from input to output; the first two go down to stride 4.
        prefix: what stands before these names in a classification state dict.
        head: name of the classification head.
        levels: ``module name -> channels`` of the maps that the FPN takes; empty if there is no detector on this backbone.
        strides: their strides in pixels.
        mean, std: of the images that its weights were trained with, for RGB in [0, 1].
        crop: side in pixels of the image that it classifies.
        crop_share: that side as a share of the image's shorter side.
        fixed_crop: it classifies images of no other side.
        gives_maps: ``build(levels=...)`` makes a module that gives the maps of these levels itself.
    """

    build: Callable[..., nn.Module]
    imagenet: Any
    norm_eps: float
    stages: Stages
    prefix: str
    head: str
    levels: dict[str, int]
    strides: tuple[int, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: int = 224
    crop_share: float = 224 / 256
    fixed_crop: bool = False
    gives_maps: bool = False


class BackboneWithFpn(nn.Module):
    """A backbone that gives its maps by name, and an FPN over them: children and maps as torchvision's BackboneWithFPN."""

    def __init__(self, spec: nn.Module, fpn: FeaturePyramidNetwork, channels: int) -> None:
        super().__init__()
        self.body = spec
        self.fpn = fpn
        self.out_channels = channels

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(self.body(batch))
        return maps


def norm_layer(norm: str, eps: float) -> NormLayer:
    """The norm layer of a description: "frozen" or "batch"."""
    return partial(FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d, eps=eps)


def build_backbone(
    spec: BackboneSpec,
    norm: NormLayer,
    *,
    channels: int = 256,
    fpn_norm: NormLayer | None = None,
    first_level: int = 0,
    extra_blocks: ExtraFPNBlock | None = None,
) -> nn.Module:
    """Backbone and FPN with random weights; children ``body`` and ``fpn``, state-dict keys as torchvision's.

    Args:
        first_level: the first of the backbone's maps that the FPN takes; one-stage detectors leave out the finest.
        extra_blocks: makes coarser maps from the FPN's last; None for one more by pooling, as R-CNNs have.
    """
    levels = dict(list(spec.levels.items())[first_level:])
    if spec.gives_maps:
        blocks = extra_blocks or LastLevelMaxPool()
        fpn = FeaturePyramidNetwork(list(levels.values()), channels, extra_blocks=blocks, norm_layer=fpn_norm)
        return BackboneWithFpn(spec.build(norm_layer=norm, levels=tuple(levels)), fpn, channels)
    network = spec.build(weights=None, norm_layer=norm)
    return BackboneWithFPN(
        network.features if spec.prefix else network,
        {name: str(level) for level, name in enumerate(levels)},
        list(levels.values()),
        out_channels=channels,
        extra_blocks=extra_blocks,
        norm_layer=fpn_norm,
    )


def _resnet(build: Callable[..., nn.Module], imagenet: Any, width: int) -> BackboneSpec:
    """``width``: channels of layer1; each later layer doubles them."""
    return BackboneSpec(
        build,
        imagenet,
        norm_eps=1e-5,
        stages=(("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)),
        prefix="",
        head="fc",
        levels={f"layer{k}": width * 2 ** (k - 1) for k in range(1, 5)},
        strides=(4, 8, 16, 32),
    )


def _mobilenet(
    build: Callable[..., nn.Module],
    imagenet: Any,
    *,
    norm_eps: float,
    starts: tuple[int, ...],
    levels: dict[str, int],
    strides: tuple[int, ...],
) -> BackboneSpec:
    """``starts``: index of the first module of each stage, as torchvision divides them, and the end of the last."""
    stages = tuple(tuple(str(index) for index in range(*ends)) for ends in pairwise(starts))
    return BackboneSpec(
        build, imagenet, norm_eps, stages, prefix="features.", head="classifier", levels=levels, strides=strides
    )


BACKBONES: dict[str, BackboneSpec] = {
    "resnet18": _resnet(models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1, 64),
    "resnet34": _resnet(models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1, 64),
    "resnet50": _resnet(models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1, 256),
    "resnet101": _resnet(models.resnet101, models.ResNet101_Weights.IMAGENET1K_V1, 256),
    # The last block of each stride, as for ResNets: small objects need the map of stride 4. The 1x1 convolution to 1280
    # channels (module 18) serves ImageNet's head and is left out of detectors.
    "mobilenet_v2": _mobilenet(
        models.mobilenet_v2,
        models.MobileNet_V2_Weights.IMAGENET1K_V1,
        norm_eps=1e-5,
        starts=(0, 2, 4, 7, 14, 18, 19),
        levels={"3": 24, "6": 32, "13": 96, "17": 320},
        strides=(4, 8, 16, 32),
    ),
    # torchvision's two maps, both of stride 32, because the published COCO weights have them
    "mobilenet_v3_large": _mobilenet(
        models.mobilenet_v3_large,
        models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        norm_eps=1e-3,
        starts=(0, 2, 4, 7, 13, 16, 17),
        levels={"13": 160, "16": 960},
        strides=(32, 32),
    ),
    # The same network with the last map of each stride, for detectors that need no published COCO weights; the last one
    # is what classifiers pool, so that weights of a detector hold all of a classifier's backbone
    "mobilenet_v3_large_fine": _mobilenet(
        models.mobilenet_v3_large,
        models.MobileNet_V3_Large_Weights.IMAGENET1K_V1,
        norm_eps=1e-3,
        starts=(0, 2, 4, 7, 13, 16, 17),
        levels={"3": 24, "6": 40, "12": 112, "16": 960},
        strides=(4, 8, 16, 32),
    ),
    "mobilenet_v3_small": _mobilenet(
        models.mobilenet_v3_small,
        models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
        norm_eps=1e-3,
        starts=(0, 1, 2, 4, 9, 12, 13),
        levels={},
        strides=(),
    ),
}
