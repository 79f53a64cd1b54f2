"""Build backbones from timm: any network whose maps form a pyramid for torchvision's FPN, any network as a classifier.

timm is imported when such a backbone is first used; nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from detseg.errors import DataError
from detseg.models.architectures import MODELS, Architecture
from detseg.models.backbones import BACKBONES, BackboneSpec, NormLayer, Stages
from detseg.models.description import Task
from detseg.nearest import did_you_mean, either, nearest

PREFIX = "timm:"
FAMILIES: dict[str, Task] = {
    "fasterrcnn": "detect",
    "maskrcnn": "segment",
    "keypointrcnn": "keypoints",
    "classifier": "classify",
}
"""Model families that support any timm backbone -> their task."""

FINEST, COARSEST = 4, 32
"""Range of strides of the maps that the FPN uses: finer maps cost most and help least; images are padded to 32."""

TRIAL_HW = (64, 96)
"""Size in pixels for testing a backbone: it must accept any multiple of 32, not only its training size."""

NETWORK = "network"
"""The child that is timm's network. As the last name of the last stage it covers everything not in any stage."""

LIST_ALL = f"""List all {len(MODELS)} with: python -c 'from detseg.models import MODELS; print(*MODELS)'"""
"""End of a message about an unknown name."""


def architecture_name(model: str, backbone: str | None) -> str:
    """Return the model name of a family with a backbone: ``maskrcnn`` with ``timm:convnext_atto`` is
    ``maskrcnn_timm:convnext_atto``, ``fasterrcnn`` with ``resnet18`` is ``fasterrcnn_resnet18_fpn``. Without a backbone
    it is ``model``.

    Raises:
        DataError: this combination does not exist.
    """
    if backbone is None:
        return model
    if backbone.startswith(PREFIX) and model in FAMILIES:
        return f"{model}_{backbone}"
    name = backbone if model == "classifier" else f"{model}_{backbone}_fpn"
    if name in MODELS and (model != "classifier" or MODELS[name].task == "classify"):
        return name
    if backbone.startswith(PREFIX):
        raise DataError(f"--model {model} does not support timm backbones; use {', '.join(FAMILIES)}")
    close = did_you_mean(name, MODELS, most=3) or "."
    raise DataError(
        f"--model {model} --backbone {backbone} does not exist; use --backbone {PREFIX}NAME with --model "
        f"{either(FAMILIES)}, or the backbone of a model that has one here{close} {LIST_ALL}"
    )


@lru_cache
def timm_architecture(arch: str) -> Architecture | None:
    """Return the architecture for a name such as ``fasterrcnn_timm:convnext_atto``; None for other names.

    Raises:
        DataError: timm is not installed, has no such network, or the network cannot be used as a backbone.
    """
    family, separator, name = arch.partition(f"_{PREFIX}")
    if not separator or family not in FAMILIES:
        return None
    task, backbone = FAMILIES[family], f"{PREFIX}{name}"
    if task == "classify":
        return Architecture(task, backbone, image_size=(256, 0))
    strides = detector_backbone(name).strides
    sides = [8 * stride for stride in strides]
    anchors = tuple((side,) for side in [*sides, 2 * sides[-1]])
    return Architecture(task, backbone, anchor_sizes=anchors, rpn_post_nms_top_n=(2000, 300))  # as for ResNet-18


def backbone_spec(architecture: Architecture) -> BackboneSpec:
    """Return the backbone of an architecture, from torchvision or timm."""
    if not architecture.backbone.startswith(PREFIX):
        return BACKBONES[architecture.backbone]
    name = architecture.backbone.removeprefix(PREFIX)
    return classifier_backbone(name) if architecture.task == "classify" else detector_backbone(name)


class TimmBackbone(nn.Module):
    """timm's ``features_only`` network as a backbone: maps a batch [N, 3, H, W] to feature maps "0", "1", ..."""

    def __init__(self, network: nn.Module, channels_last: bool) -> None:
        """``channels_last``: the network's maps are [N, h, w, C], as in Swin."""
        super().__init__()
        self.network = network
        self.channels_last = channels_last

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        maps = self.network(batch)
        if self.channels_last:
            maps = [level.permute(0, 3, 1, 2).contiguous() for level in maps]
        return {str(index): level for index, level in enumerate(maps)}


@lru_cache
def detector_backbone(name: str) -> BackboneSpec:
    """Describe a timm network as the backbone of a detector, without allocating its weights.

    Raises:
        DataError: timm is not installed or has no such network, its maps do not form a pyramid, or it accepts only one
            image size.
    """
    config = _config(name)
    all_maps: dict[str, Any] = {"features_only": True}
    network = _on_meta(name, all_maps)
    strides = [int(stride) for stride in network.feature_info.reduction()]
    indices = {
        stride: index for index, stride in enumerate(strides) if FINEST <= stride <= COARSEST
    }  # last map of each stride
    chosen = sorted(indices)
    if len(chosen) < 2 or any(2 * fine != coarse for fine, coarse in pairwise(chosen)):
        raise DataError(
            f"{PREFIX}{name} has maps of stride {', '.join(map(str, strides))}; an FPN needs two or more maps from "
            f"stride {FINEST} to {COARSEST}, each twice the previous one. Choose a backbone with such maps, such as "
            f"{PREFIX}convnext_atto, {PREFIX}efficientnet_b0 or {PREFIX}swin_tiny_patch4_window7_224, or use this one "
            "with --model classifier"
        )
    out_indices = network.feature_info.out_indices  # indices of these maps among all maps of the network
    options = all_maps | {"out_indices": tuple(out_indices[indices[stride]] for stride in chosen)}
    channels = [network.feature_info.channels()[indices[stride]] for stride in chosen]
    options = _options_for_any_size(name, options, channels, chosen)
    network = _on_meta(name, options)
    return BackboneSpec(
        build=partial(_build_detector_backbone, name, options),
        imagenet=None,
        norm_eps=1e-5,
        stages=_stages(network, network.feature_info.module_name(), network.feature_info.reduction()),
        prefix="",
        head="",
        levels={str(stride): number for stride, number in zip(chosen, channels, strict=True)},
        strides=tuple(chosen),
        mean=config.mean,
        std=config.std,
        returns_maps=True,
    )


@lru_cache
def classifier_backbone(name: str) -> BackboneSpec:
    """Describe a timm network as a classifier: the network without its last layer, and a new linear layer.

    Raises:
        DataError: timm is not installed or has no such network, or the network does not return a vector per image.
    """
    config = _config(name)
    network = _on_meta(name, {"num_classes": 0})
    side = int(config.input_size[-1])
    try:
        features = network(torch.empty(1, 3, side, side, device="meta"))
    except Exception as error:  # timm's networks raise many types
        raise DataError(f"{PREFIX}{name} cannot be run on {side} x {side} pixels ({_first_line(error)})") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise DataError(
            f"{PREFIX}{name} does not return a vector per image, so it cannot classify; choose another backbone"
        )
    info = getattr(network, "feature_info", None) or []
    entries = [entry for entry in info if isinstance(entry, dict)]
    return BackboneSpec(
        build=partial(_build_classifier, name, int(features.shape[1])),
        imagenet=None,
        norm_eps=1e-5,
        stages=_stages(network, [entry["module"] for entry in entries], [entry["reduction"] for entry in entries]),
        prefix="",
        head="classifier",
        levels={},
        strides=(),
        mean=config.mean,
        std=config.std,
        crop=side,
        crop_share=float(config.crop_pct),
        fixed_crop=bool(config.fixed_input_size),
    )


def _build_detector_backbone(
    name: str,
    options: dict[str, Any],
    *,
    weights: None = None,
    norm_layer: NormLayer = nn.BatchNorm2d,
    levels: Sequence[str] | None = None,
) -> TimmBackbone:
    """Build the backbone with random weights. Its norm layers keep their eps and activation; with a frozen
    ``norm_layer`` BatchNorm is replaced by timm's frozen one.

    ``levels``: strides of the maps to return; None for all.
    """
    timm = import_timm(name)
    if levels is not None:
        strides = detector_backbone(name).strides
        indices = [strides.index(int(level)) for level in levels]
        options = options | {"out_indices": tuple(options["out_indices"][index] for index in indices)}
    network = timm.create_model(name, pretrained=False, **options)
    if isinstance(norm_layer(1), FrozenBatchNorm2d):
        network = timm.layers.freeze_batch_norm_2d(network)
    return TimmBackbone(network, _is_channels_last(network))


def _build_classifier(
    name: str, features: int, *, weights: None = None, num_classes: int, norm_layer: NormLayer | None = None
) -> nn.Module:
    """Build the classifier with random weights; timm's norm layers are unchanged, as classifiers train them."""
    network = import_timm(name).create_model(name, pretrained=False, num_classes=0)
    return nn.ModuleDict({NETWORK: network, "classifier": nn.Linear(features, num_classes)})


def import_timm(name: str) -> Any:
    """Import timm for the backbone ``name``; DataError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise DataError(f"{PREFIX}{name} needs the package timm: pip install 'detseg[timm]'") from error
    return timm


def _config(name: str) -> Any:
    """Return timm's configuration of a network: normalisation, input size, location of its weights.

    Raises:
        DataError: timm is not installed or has no network with this name.
    """
    timm = import_timm(name)
    if ":" in name or "/" in name or not timm.is_model(name):
        close = nearest(name, timm.list_models(), most=3)
        hint = f"; similar names: {', '.join(PREFIX + other for other in close)}" if close else ""
        raise DataError(f"{PREFIX}{name}: timm {timm.__version__} has no network with this name{hint}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None:
        base_name = name.partition(".")[0]
        pretrained = timm.list_pretrained(f"{base_name}.*")
        variants = ", ".join(PREFIX + other for other in pretrained) or f"{PREFIX}{base_name}"
        raise DataError(f"{PREFIX}{name}: timm has no such variant; available: {variants}")
    if len(config.mean) != 3 or config.input_size[0] != 3:
        raise DataError(f"{PREFIX}{name} needs images with {config.input_size[0]} channels; RGB has 3")
    return config


def _on_meta(name: str, options: dict[str, Any]) -> Any:
    """Build the network in eval mode on the meta device, without allocating its weights.

    Raises:
        DataError: timm cannot build it with these options.
    """
    timm = import_timm(name)
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options).eval()
    except TypeError:
        raise  # an option that this network does not support
    except Exception as error:  # timm raises many types
        output = "the maps of its stages" if options.get("features_only") else "its features"
        raise DataError(f"{PREFIX}{name}: timm does not provide {output} ({_first_line(error)})") from error


def _options_for_any_size(
    name: str, options: dict[str, Any], channels: list[int], strides: list[int]
) -> dict[str, Any]:
    """Return ``options`` with which the network accepts any multiple of 32 pixels; Swin needs an extra one for that.

    Raises:
        DataError: there are none.
    """
    reasons = []
    for candidate in (options, options | {"strict_img_size": False}):
        try:
            network = _on_meta(name, candidate)
            with torch.no_grad():
                maps = TimmBackbone(network, _is_channels_last(network))(torch.empty(1, 3, *TRIAL_HW, device="meta"))
        except Exception as error:  # timm's networks raise many types, and TypeError for an unknown option
            reasons.append(_first_line(error))
            continue
        shapes = [tuple(level.shape[1:]) for level in maps.values()]
        # torchvision computes strides by this division too; maps of networks without padding are a pixel or two smaller
        actual = [(count, TRIAL_HW[0] // height, TRIAL_HW[1] // width) for count, height, width in shapes]
        if actual == [(count, stride, stride) for count, stride in zip(channels, strides, strict=True)]:
            return candidate
        reasons.append(f"its maps of {TRIAL_HW[1]} x {TRIAL_HW[0]} pixels are {shapes}")
    raise DataError(
        f"{PREFIX}{name} cannot be the backbone of a detector, which must accept any multiple of 32 pixels "
        f"({reasons[0]}). Choose another one, such as {PREFIX}convnext_atto, or use this one with --model classifier"
    )


def _is_channels_last(network: nn.Module) -> bool:
    return str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")


def _stages(network: nn.Module, ends: Sequence[str], strides: Sequence[int]) -> Stages:
    """Divide the modules of ``network`` into stages, at the modules whose outputs are feature maps according to timm.

    The first stage ends at the last map finer than stride 4, or before the first map; each later one at the next map,
    the last one at the end. The first two are the stem. If timm lists no modules, each block is a stage.
    """
    modules = dict(network.named_modules())
    map_ends: dict[str, int] = {}
    for end, stride in zip(ends, strides, strict=True):
        # features_only networks flatten the names of their children, or contain the network as "model"
        candidates = (end, end.replace(".", "_", 1), end.replace(".", "_"), f"model.{end}")
        map_ends |= dict.fromkeys([candidate for candidate in candidates if candidate in modules][:1], stride)
    if map_ends:
        units = list(_units(network, list(map_ends)))
        fine = [end for end, stride in map_ends.items() if stride < FINEST][-1:]
        last = [*fine, *(end for end, stride in map_ends.items() if stride >= FINEST)]
        if not fine and units[0] != last[0]:
            last = [units[units.index(last[0]) - 1], *last]
    else:
        blocks = [name for name, child in modules.items() if isinstance(child, (nn.Sequential, nn.ModuleList))]
        units = list(_units(network, ["model.", *(f"{name}." for name in blocks if name.count(".") < 2)]))
        last = list(units)
    stages: list[list[str]] = [[]]
    for unit in units:
        stages[-1].append(f"{NETWORK}.{unit}")
        if unit in last[:-1]:
            stages.append([])
    return (*(tuple(stage) for stage in stages[:-1]), (*stages[-1], NETWORK))


def _units(module: nn.Module, ends: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Yield the names of the modules in order, descending into a module only if it contains a name of ``ends``."""
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if any(end.startswith(f"{full}.") for end in ends):
            yield from _units(child, ends, f"{full}.")
        else:
            yield full


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
