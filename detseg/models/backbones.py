"""Describe the backbones: which torchvision network, its stages, and the feature maps that the FPN uses."""

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
    """Description of one backbone network.

    Attributes:
        build: torchvision's builder of the whole classification network.
        imagenet: its published ImageNet weights. Always V1: the V2 recipes (label smoothing, long schedules) score
            higher on ImageNet, but their features transfer worse while frozen.
        norm_eps: eps of the norm layers that these weights were trained with.
        stages: names of the backbone's modules, stage by stage from input to output; the first two end at stride 4.
        prefix: prefix of these names in a classification state dict.
        head: name of the classification head.
        levels: ``module name -> channels`` of the feature maps that the FPN uses; empty if no detector uses this
            backbone.
        strides: strides of these maps in pixels.
        mean, std: of the images that the weights were trained on, for RGB in [0, 1].
        crop: side in pixels of the square crop that the classifier uses.
        crop_share: ``crop`` divided by the shorter side of the resized image.
        fixed_crop: whether the network accepts images of this size only.
        returns_maps: whether ``build(levels=...)`` builds a module that itself returns the maps of these levels.
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
    returns_maps: bool = False


class BackboneWithFpn(nn.Module):
    """A backbone that returns its maps by name, and an FPN on top: the same children and outputs as in
    torchvision's BackboneWithFPN.

    State-dict keys are torchvision's: "backbone.body" for the backbone, "backbone.fpn" for the FPN.
    """

    def __init__(self, backbone: nn.Module, fpn: FeaturePyramidNetwork, channels: int) -> None:
        super().__init__()
        self.body = backbone
        self.fpn = fpn
        self.out_channels = channels

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(self.body(batch))
        return maps


def norm_layer(norm: str, eps: float) -> NormLayer:
    """Return the norm layer class for ``norm``, "frozen" or "batch", with ``eps`` set."""
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
    """Build backbone and FPN with random weights; torchvision's state-dict keys (backbone.body, backbone.fpn).

    Args:
        first_level: index of the first backbone map that the FPN uses; one-stage detectors skip the finest map.
        extra_blocks: computes coarser maps from the FPN's last one; None for one more by pooling, as in R-CNNs.
    """
    levels = dict(list(spec.levels.items())[first_level:])
    if spec.returns_maps:
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
    """Describe a ResNet. ``width``: channels of layer1; each later layer doubles them."""
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
    """Describe a MobileNet. ``starts``: index of the first module of each stage, in torchvision's division, and the end
    of the last stage."""
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
    # channels (module 18) belongs to ImageNet's head and is not part of detectors.
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
    # The same network with the last map of each stride, for detectors without published COCO weights; classifiers
    # pool the last map, so a detector's weights contain the whole backbone of a classifier
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
