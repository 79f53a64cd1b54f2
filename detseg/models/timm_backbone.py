"""Backbones from timm: any network whose maps make a pyramid under torchvision's FPN, and any network as a classifier.

timm is imported when such a backbone is first asked for; nothing else needs it.
"""

from __future__ import annotations

import difflib
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

PREFIX = "timm:"
FAMILIES: dict[str, Task] = {
    "fasterrcnn": "detect",
    "maskrcnn": "segment",
    "keypointrcnn": "keypoints",
    "classifier": "classify",
}
"""Models that take any timm backbone, and their task."""

FINEST, COARSEST = 4, 32
"""Strides of the maps that an FPN takes: finer ones cost most and help least, images are padded to 32."""

TRIAL_HW = (64, 96)
"""Size in pixels on which a backbone is tried: any multiple of 32 must do, not only the square of its training."""

LAST = "network"
"""The child that holds timm's network. As the last name of the last stage it stands for whatever no stage names."""


def architecture_name(model: str, backbone: str | None) -> str:
    """The one name of a family on a backbone: ``maskrcnn`` on ``timm:convnext_atto`` is ``maskrcnn_timm:convnext_atto``,
    ``fasterrcnn`` on ``resnet18`` is ``fasterrcnn_resnet18_fpn``. Without a backbone the name is ``model`` itself.

    Raises:
        DataError: there is no such pair.
    """
    if backbone is None:
        return model
    if backbone.startswith(PREFIX) and model in FAMILIES:
        return f"{model}_{backbone}"
    name = backbone if model == "classifier" else f"{model}_{backbone}_fpn"
    if name in MODELS and (model != "classifier" or MODELS[name].task == "classify"):
        return name
    if backbone.startswith(PREFIX):
        raise DataError(f"--model {model} takes no timm backbone; {', '.join(FAMILIES)} do")
    raise DataError(
        f"--model {model} --backbone {backbone} is not known; --backbone is {PREFIX}NAME with --model {', '.join(FAMILIES)}, "
        f"or a backbone of this list: {', '.join(MODELS)}"
    )


@lru_cache
def timm_architecture(arch: str) -> Architecture | None:
    """The architecture of a name such as ``fasterrcnn_timm:convnext_atto``; None if it is no such name.

    Raises:
        DataError: timm is missing, has no such network, or the network cannot be a backbone.
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
    """The backbone of an architecture: torchvision's by name, or timm's."""
    if not architecture.backbone.startswith(PREFIX):
        return BACKBONES[architecture.backbone]
    name = architecture.backbone.removeprefix(PREFIX)
    return classifier_backbone(name) if architecture.task == "classify" else detector_backbone(name)


class TimmBackbone(nn.Module):
    """timm's ``features_only`` network as a backbone: a batch [N, 3, H, W] -> its maps by name "0", "1", ..."""

    def __init__(self, network: nn.Module, channels_last: bool) -> None:
        """``channels_last``: its maps are [N, h, w, C], as Swin's."""
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
    """A timm network as the backbone of a detector, looked at without memory for its weights.

    Raises:
        DataError: timm is missing or does not know it, its maps make no pyramid, or it takes images of one size only.
    """
    config = _config(name)
    first: dict[str, Any] = {"features_only": True}
    network = _on_meta(name, first)
    strides = [int(stride) for stride in network.feature_info.reduction()]
    indices = {stride: index for index, stride in enumerate(strides) if FINEST <= stride <= COARSEST}  # last of each
    chosen = sorted(indices)
    if len(chosen) < 2 or any(2 * fine != coarse for fine, coarse in pairwise(chosen)):
        raise DataError(
            f"{PREFIX}{name} gives maps of stride {', '.join(map(str, strides))}; an FPN needs two or more maps from "
            f"stride {FINEST} to {COARSEST}, each twice the one before. Choose a backbone with a pyramid, such as "
            f"{PREFIX}convnext_atto, {PREFIX}efficientnet_b0 or {PREFIX}swin_tiny_patch4_window7_224, or use this one "
            "with --model classifier"
        )
    places = network.feature_info.out_indices  # of the maps that timm chose, among all that the network has
    options = first | {"out_indices": tuple(places[indices[stride]] for stride in chosen)}
    channels = [network.feature_info.channels()[indices[stride]] for stride in chosen]
    options = _options_that_fit(name, options, channels, chosen)
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
        gives_maps=True,
    )


@lru_cache
def classifier_backbone(name: str) -> BackboneSpec:
    """A timm network as a classifier: the network without its last layer, and a linear layer of our own.

    Raises:
        DataError: timm is missing or does not know it, or it gives no vector for an image.
    """
    config = _config(name)
    network = _on_meta(name, {"num_classes": 0})
    side = int(config.input_size[-1])
    try:
        features = network(torch.empty(1, 3, side, side, device="meta"))
    except Exception as error:  # whatever timm's network happens to raise
        raise DataError(f"{PREFIX}{name} cannot be run on {side} x {side} pixels ({_first_line(error)})") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise DataError(f"{PREFIX}{name} gives no vector for an image, so it cannot classify; choose another backbone")
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
    """The backbone with random weights. Its norm layers keep their own eps and activation; with a frozen ``norm_layer``
    BatchNorm becomes timm's own frozen one.

    ``levels``: which of the maps are wanted; None for all.
    """
    timm = import_timm(name)
    if levels is not None:
        strides = detector_backbone(name).strides
        kept = [strides.index(int(level)) for level in levels]
        options = options | {"out_indices": tuple(options["out_indices"][index] for index in kept)}
    network = timm.create_model(name, pretrained=False, **options)
    if isinstance(norm_layer(1), FrozenBatchNorm2d):
        network = timm.layers.freeze_batch_norm_2d(network)
    return TimmBackbone(network, _is_channels_last(network))


def _build_classifier(
    name: str, features: int, *, weights: None = None, num_classes: int, norm_layer: NormLayer | None = None
) -> nn.Module:
    """timm's norm layers stay as they are: classifiers learn theirs."""
    network = import_timm(name).create_model(name, pretrained=False, num_classes=0)
    return nn.ModuleDict({LAST: network, "classifier": nn.Linear(features, num_classes)})


def import_timm(name: str) -> Any:
    """The package timm, which the backbone ``name`` needs; DataError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise DataError(f"{PREFIX}{name} needs the package timm: pip install 'detseg[timm]'") from error
    return timm


def _config(name: str) -> Any:
    """timm's own record of a network: normalisation, size, where its weights are.

    Raises:
        DataError: timm is missing or has no network of this name.
    """
    timm = import_timm(name)
    if ":" in name or "/" in name or not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        near = f"; near it are {', '.join(PREFIX + other for other in close)}" if close else ""
        raise DataError(f"{PREFIX}{name}: timm {timm.__version__} has no network of this name{near}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        config = None
    if config is None:
        bare = name.partition(".")[0]
        variants = ", ".join(PREFIX + other for other in timm.list_pretrained(f"{bare}.*")) or f"{PREFIX}{bare}"
        raise DataError(f"{PREFIX}{name}: timm has no such variant; it has {variants}")
    if len(config.mean) != 3 or config.input_size[0] != 3:
        raise DataError(f"{PREFIX}{name} takes images of {config.input_size[0]} channels; RGB has 3")
    return config


def _on_meta(name: str, options: dict[str, Any]) -> Any:
    """The network in eval mode without memory for its weights.

    Raises:
        DataError: timm cannot build it like this.
    """
    timm = import_timm(name)
    try:
        with torch.device("meta"):
            return timm.create_model(name, pretrained=False, **options).eval()
    except TypeError:
        raise  # an option that this network does not know
    except Exception as error:  # whatever timm happens to raise
        what = "the maps of its stages" if options.get("features_only") else "its features"
        raise DataError(f"{PREFIX}{name}: timm does not give {what} ({_first_line(error)})") from error


def _options_that_fit(name: str, options: dict[str, Any], channels: list[int], strides: list[int]) -> dict[str, Any]:
    """``options`` with which the network takes images of any multiple of 32 pixels; Swin has one to say so.

    Raises:
        DataError: there are none.
    """
    reasons = []
    for tried in (options, options | {"strict_img_size": False}):
        try:
            network = _on_meta(name, tried)
            with torch.no_grad():
                maps = TimmBackbone(network, _is_channels_last(network))(torch.empty(1, 3, *TRIAL_HW, device="meta"))
        except Exception as error:  # whatever timm's network happens to raise, and TypeError for an unknown option
            reasons.append(_first_line(error))
            continue
        found = [tuple(level.shape[1:]) for level in maps.values()]
        # torchvision finds strides by this division too; networks that do not pad lose a pixel or two of a map
        seen = [(count, TRIAL_HW[0] // height, TRIAL_HW[1] // width) for count, height, width in found]
        if seen == [(count, stride, stride) for count, stride in zip(channels, strides, strict=True)]:
            return tried
        reasons.append(f"its maps of {TRIAL_HW[1]} x {TRIAL_HW[0]} pixels are {found}")
    raise DataError(
        f"{PREFIX}{name} cannot be the backbone of a detector, whose images have any multiple of 32 pixels "
        f"({reasons[0]}). Choose another, such as {PREFIX}convnext_atto, or use this one with --model classifier"
    )


def _is_channels_last(network: nn.Module) -> bool:
    return str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")


def _stages(network: nn.Module, ends: Sequence[str], strides: Sequence[int]) -> Stages:
    """The modules of ``network`` in stages, by the modules at which timm says that its maps end.

    The first stage goes to the last map finer than stride 4, or to before the first map; each later one to the next
    map, the last one to the end. The first two are the stem. Where timm names no module, each block is a stage.
    """
    known = dict(network.named_modules())
    found: dict[str, int] = {}
    for end, stride in zip(ends, strides, strict=True):
        # features_only networks flatten the names of their children, or hold the network as "model"
        forms = (end, end.replace(".", "_", 1), end.replace(".", "_"), f"model.{end}")
        found |= dict.fromkeys([form for form in forms if form in known][:1], stride)
    if found:
        units = list(_units(network, list(found)))
        fine = [end for end, stride in found.items() if stride < FINEST][-1:]
        last = [*fine, *(end for end, stride in found.items() if stride >= FINEST)]
        if not fine and units[0] != last[0]:
            last = [units[units.index(last[0]) - 1], *last]
    else:
        blocks = [name for name, child in known.items() if isinstance(child, (nn.Sequential, nn.ModuleList))]
        units = list(_units(network, ["model.", *(f"{name}." for name in blocks if name.count(".") < 2)]))
        last = list(units)
    stages: list[list[str]] = [[]]
    for unit in units:
        stages[-1].append(f"{LAST}.{unit}")
        if unit in last[:-1]:
            stages.append([])
    return (*(tuple(stage) for stage in stages[:-1]), (*stages[-1], LAST))


def _units(module: nn.Module, ends: Sequence[str], prefix: str = "") -> Iterator[str]:
    """Names of the modules in order, going into a module only where a name of ``ends`` lies inside."""
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        if any(end.startswith(f"{full}.") for end in ends):
            yield from _units(child, ends, f"{full}.")
        else:
            yield full


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0] or type(error).__name__
