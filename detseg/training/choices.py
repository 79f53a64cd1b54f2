"""What a run picks when the user did not say: for the data, for the machine, each with its reason in a line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.checkpoints.manager import CheckpointInterval
from detseg.errors import DataError
from detseg.models import describe
from detseg.models.backbones import BACKBONES
from detseg.models.build import architecture_of
from detseg.models.create import BOTH_FREEZES, published_weights
from detseg.models.weights.bundled import BUNDLED, FITTING, stages_taken
from detseg.options import TrainConfig
from detseg.runtime.machine import default_workers
from detseg.synthetic.demo.render import demo_folder
from detseg.training.anchors import fitted_anchor_sizes
from detseg.training.task_choice import pick_task

CPU_IMAGE_SIZE = 480
ENOUGH_FOR_STATISTICS = 16
"""Images of a batch from which BatchNorm learns them well (Wu and He 2018, "Group Normalization", figure 1)."""
DEMO: dict[str, Any] = {
    "model": "maskrcnn_mobilenet_v3_large_fpn_slim",
    "weights": BUNDLED,
    "freeze": "none",
    "image_size": 240,
    "epochs": 16,
    "eval_epochs": 8,
    "batch_size": 4,
    "optimizer": "adamw",
    "lr": 1e-3,
    "head_lr_mult": 3.0,
    "beta2": 0.98,
    "rois_per_image": 64,
    "mask_rois_per_image": 6,
    "detections_per_image": 30,
    "augment": "aerial",
}
"""The no-argument run: small enough to end in three minutes on two good cores, in five on slow ones."""


class Picks:
    """Options with what is picked for those that are None.

    Attributes:
        config: the options as given, with what was picked for others so far where :meth:`apply` was called.
        picked: option -> value and reason, in the order of picking.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.picked: dict[str, tuple[Any, str]] = {}

    def pick(self, name: str, value: Any, reason: str) -> Any:
        """Take the user's value of ``name``, or ``value``, and remember why."""
        given = getattr(self.config, name)
        if given is not None:
            return given
        self.picked[name] = (value, reason)
        return value

    def set(self, name: str, value: Any, reason: str) -> None:
        """Replace what the user gave for ``name``, and remember why."""
        self.picked[name] = (value, reason)

    def apply(self) -> None:
        """Write what was picked into ``config``."""
        self.config = replace(self.config, **{name: value for name, (value, _) in self.picked.items()})

    def lines(self) -> list[str]:
        """A line for each choice."""
        return [f"  {name} {value} ({reason})" for name, (value, reason) in self.picked.items()]


def resolve(
    config: TrainConfig, table: AnnotationTable, train: AnnotationTable, device: torch.device, world: int = 1
) -> tuple[TrainConfig, list[str]]:
    """Fill every option that is None. Returns the full config and a line for each choice.

    With ``minutes`` and no ``epochs``, these and what follows from them stay None: how many fit is measured later, on
    the model (see ``time_budget.py``).

    Args:
        table: all of the data.
        train: the part that is trained on.
        world: processes that train together; each has batches of its own, and the rate is tied to all of their images.

    Raises:
        DataError: an option that cannot work, or data that cannot teach what is asked.
    """
    check_ranges(config)
    picks = Picks(config)
    cuda = device.type == "cuda"
    picks.pick("device", str(device), "the fastest here")
    if not config.data:
        for name, value in demo_options(config).items():
            picks.pick(name, value, "for the demo set")
        picks.apply()
    task = picks.pick("task", *pick_task(picks.config, table))
    arch, weights = _pick_model(picks, task, cuda)
    if task != "classify":
        _pick_detector(picks, arch, weights, train, cuda)
    picks.pick("augment", "light", "small sets overfit without")
    if config.minutes is None:
        picks.pick("epochs", 10, "as the published Penn-Fudan run")
    if config.linear_probe_epochs == "half" and config.minutes is None:
        epochs = picks.config.epochs or picks.picked.get("epochs", (10, ""))[0]
        picks.set("linear_probe_epochs", max(1, epochs // 2), "half of all")
    _pick_optimizer(picks, task, arch, weights, len(train), cuda, world)
    picks.pick(
        "workers", default_workers(device), "the cores but one, at most 4" if cuda else "the CPU is busy training"
    )
    picks.apply()
    if picks.config.epochs is None:
        return picks.config, picks.lines()
    config, more = follow_epochs(picks.config, len(train), world)
    return config, picks.lines() + more


def _pick_model(picks: Picks, task: str, cuda: bool) -> tuple[str, str]:
    """Architecture, starting weights, and how much of them is frozen. Returns the first two."""
    config = picks.config
    bundled = config.weights == BUNDLED
    fitting = FITTING[task], "the one that the bundled weights fit"
    arch = picks.pick("model", *(fitting if bundled else _model(task, cuda)))
    weights = picks.pick("weights", published_weights(arch), "pretrained weights are what makes small data enough")
    stages = stages_taken(weights, task)
    if stages is not None:
        _check_later_stages_learn(config, stages)
    if config.trainable_layers is None:
        if weights == "none":
            picks.pick("freeze", "none", "there is nothing pretrained to keep")
        elif config.linear_probe_epochs is not None:
            picks.pick("freeze", "stem", "after the probe")
        elif stages is not None:
            picks.pick("freeze", "none", "of the bundled weights a classifier takes the first stages only")
        else:
            reason = "torchvision's way" if cuda else "halves the time on a CPU"
            picks.pick("freeze", "stem" if cuda else "backbone", reason)
    return arch, weights


def _pick_detector(picks: Picks, arch: str, weights: str, train: AnnotationTable, cuda: bool) -> None:
    """What only detectors have: input size, anchors, boxes in the loss and in the result."""
    if not cuda and architecture_of(arch).family != "ssdlite":
        picks.pick("image_size", CPU_IMAGE_SIZE, "a CPU needs twice the time at 800")
    _pick_anchors(picks, arch, weights, train)
    if not _is_one_stage(arch):
        picks.pick("rois_per_image", 128, "torchvision's 512 doubles the time and gains nothing")
    crowded = int(train.instances_per_image().max(initial=0))
    most = max(100, round(1.5 * crowded))
    picks.pick("detections_per_image", most, f"the most crowded training image has {crowded}")


def _pick_optimizer(picks: Picks, task: str, arch: str, weights: str, images: int, cuda: bool, world: int) -> None:
    """Batch size, and what is tied to it: norm statistics, optimizer, rates."""
    config, scratch = picks.config, weights == "none"
    usual = (32 if cuda else 16) if task == "classify" else (4 if cuda else 2)
    batch = picks.pick("batch_size", max(1, min(usual, images)), f"{images} training images")
    if scratch and config.norm_eval:
        raise DataError("--norm-eval without pretrained weights: there are no statistics to keep; leave it out")
    if task != "classify" and not scratch and batch < ENOUGH_FOR_STATISTICS:
        picks.pick("norm_eval", True, f"where the backbone has BatchNorm: statistics of {batch} images are noise")
    update = batch * config.accumulate * world
    reason = "needs no tuned rate" if scratch else "R-CNN's usual"
    optimizer = picks.pick("optimizer", "adamw" if scratch else "sgd", reason)
    if optimizer == "adamw":
        picks.pick("lr", 5e-4, "usual for adamw")
        picks.pick("beta2", 0.999, "usual for adamw")
    elif task == "detect" and _is_one_stage(arch):
        rate = min(0.01, 0.00125 * update)
        picks.pick("lr", rate, f"0.00125 for each of {update} images, at most 0.01: half of R-CNN's, as published")
    else:
        picks.pick("lr", min(0.02, 0.0025 * update), f"0.0025 for each of {update} images, at most 0.02")
    picks.pick("head_lr_mult", 1.0, "torchvision's way")
    picks.pick("weight_decay", 0.05 if optimizer == "adamw" else 5e-4, f"usual for {optimizer}")


def demo_options(config: TrainConfig) -> dict[str, Any]:
    """Those of ``DEMO`` that mean something beside what the user chose."""
    options = dict(DEMO)
    if config.model is None and config.task is not None:
        options["model"] = FITTING[config.task]
    arch = architecture_of(config.model or options["model"])
    if config.model not in (None, *FITTING.values()):
        options["weights"] = "none"  # the bundled ones do not fit, and others need a network
    if arch.family != "rcnn":
        del options["rois_per_image"]
    if arch.task != "segment":
        del options["mask_rois_per_image"]
    if config.optimizer == "sgd":
        del options["beta2"], options["lr"]
    if config.minutes is not None:
        del options["epochs"]
    return options


def follow_epochs(config: TrainConfig, images: int, world: int = 1) -> tuple[TrainConfig, list[str]]:
    """Fill what follows from the number of epochs, for so many training images: warm-up and milestones."""
    epochs, lines = config.epochs or 1, []
    if config.warmup_steps is None:
        steps = -(-images // ((config.batch_size or 1) * config.accumulate * world))
        warm = min(1000, steps, steps * epochs // 10)
        lines.append(f"  warmup_steps {warm} (at most one epoch, a tenth of the run, 1000 steps)")
        config = replace(config, warmup_steps=warm)
    if config.schedule == "multistep" and config.milestones is None:
        config = replace(config, milestones=[round(epochs * 2 / 3), round(epochs * 8 / 9)])
    return config, lines


def _pick_anchors(picks: Picks, arch: str, weights: str, train: AnnotationTable) -> None:
    """Anchors that fit the boxes, where the architecture's own are too large for them."""
    config = picks.config
    if config.anchor_sizes is not None:
        return
    image_size = config.image_size or picks.picked.get("image_size", (None, ""))[0]
    points = train.keypoint_schema if architecture_of(arch).task == "keypoints" else None
    described = describe(arch, train.class_map, weights=weights, image_size=image_size, keypoints=points)
    sizes = fitted_anchor_sizes(arch, weights, train, described.preprocessing)
    if sizes is not None:
        reason = "nothing is pretrained for the usual ones, and small boxes need small anchors"
        picks.pick("anchor_sizes", sizes, reason)


def check_ranges(config: TrainConfig) -> None:
    """DataError for a number that cannot work, by the name of its option."""
    lowest = {
        **dict.fromkeys(("epochs", "batch_size", "rois_per_image", "detections_per_image", "subset", "step_epochs"), 1),
        **dict.fromkeys(("accumulate", "keep_checkpoints", "eval_epochs", "mask_rois_per_image"), 1),
        "cached_views": 0,
        "skip_nonfinite": 0,
        **dict.fromkeys(("workers", "warmup_steps", "patience", "seed", "clip_norm", "weight_decay", "momentum"), 0),
        "decoded_limit": 0,
        "image_size": 32,
    }
    for name, least in lowest.items():
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise DataError(f"--{name.replace('_', '-')} {value}: it must be at least {least}")
    if isinstance(config.linear_probe_epochs, int) and config.linear_probe_epochs < 1:
        raise DataError(f"--linear-probe-epochs {config.linear_probe_epochs}: it must be at least 1")
    for name in ("lr", "backbone_lr_mult", "head_lr_mult", "gamma", "minutes", "cache_limit", "finetune_lr_mult"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise DataError(f"--{name.replace('_', '-')} {value}: it must be a number above 0")
    for name in ("ema", "beta2"):
        value = getattr(config, name)
        if value is not None and not 0 < value < 1:
            raise DataError(f"--{name} {value}: a decay lies between 0 and 1, such as 0.999")
    if config.beta2 is not None and config.optimizer == "sgd":
        raise DataError(f"--beta2 {config.beta2} is of adamw; --optimizer sgd has --momentum")
    CheckpointInterval.parse(config.checkpoint_every)
    if config.minutes is not None and config.epochs is not None and not config.resume:
        raise DataError(
            f"--minutes {config.minutes:g} and --epochs {config.epochs}: the minutes pick the epochs, so give one of "
            "them (of a saved config that has both: --minutes null for the same epochs, --epochs null to measure again)"
        )
    if config.freeze is not None and config.trainable_layers is not None:
        raise DataError(BOTH_FREEZES)
    if config.rois_per_image is not None and config.model is not None and _is_one_stage(config.model):
        raise DataError(f"--rois-per-image {config.rois_per_image}: {config.model} has one stage and samples no boxes")


def _check_later_stages_learn(config: TrainConfig, stages: int) -> None:
    """DataError where a part of the backbone that starts from scratch would be frozen."""
    layers, least = config.trainable_layers, len(BACKBONES[FITTING["classify"]].stages) - stages
    freezing = {
        "--freeze backbone": config.freeze == "backbone",
        "--linear-probe-epochs": config.linear_probe_epochs is not None,
        f"--trainable-layers {layers}": layers is not None and layers < least,
    }
    given = [option for option, is_given in freezing.items() if is_given]
    if given:
        raise DataError(
            f"{given[0]} with --weights bundled: a classifier takes the first {stages} stages of them only "
            "(the later ones were trained to find shapes), and frozen, the others would stay random; let them learn "
            f"(--freeze none or stem, or --trainable-layers {least} and more), or use --weights imagenet"
        )


def pick_output(config: TrainConfig) -> Path:
    """The run folder: as named, else runs/<data>-<model>, numbered until it is new. A run is never written over.

    Raises:
        DataError: the named folder already holds a run.
    """
    if config.output:
        folder = Path(config.output)
        if (folder / "last.safetensors").exists():
            raise DataError(
                f"{folder} already holds a run; continue it with --resume {folder}, or name another --output"
            )
        return folder
    source = Path(config.data).resolve().stem if config.data else demo_folder().name
    name = (config.model or "").replace(":", "-")  # timm:convnext_atto, and some file systems have no colons
    base = Path("runs") / f"{source}-{name}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder


def _model(task: str, cuda: bool) -> tuple[str, str]:
    if task == "classify":
        return ("resnet50", "CUDA has room for it") if cuda else ("resnet18", "quick on a CPU")
    family = {"segment": "maskrcnn", "keypoints": "keypointrcnn"}.get(task, "fasterrcnn")
    if cuda:
        return f"{family}_resnet50_fpn", "CUDA has room for it"
    if task == "keypoints":
        return f"{family}_mobilenet_v3_large_fpn_slim", "the published keypoint head is too much for a CPU"
    return f"{family}_mobilenet_v3_large_fpn", "about 30 times fewer operations than ResNet-50, for a CPU"


def _is_one_stage(arch: str) -> bool:
    return architecture_of(arch).family != "rcnn"
