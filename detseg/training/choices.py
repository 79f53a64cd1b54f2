"""Choose options that the user did not set, for the data and the machine, each with a reason in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from detseg.annotations import AnnotationTable
from detseg.checkpoints.manager import CheckpointInterval
from detseg.errors import DataError
from detseg.models import describe
from detseg.models.backbones import BACKBONES
from detseg.models.build import architecture_of
from detseg.models.create import BOTH_FREEZES, published_weights
from detseg.models.weights.bundled import BUNDLED, FITTING, stages_to_load
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.runtime.machine import MachineFacts
from detseg.synthetic.demo.render import demo_folder
from detseg.training.anchors import fitted_anchor_sizes
from detseg.training.task_choice import pick_task
from detseg.training.value_range_choice import training_value_range

CPU_IMAGE_SIZE = 480
ENOUGH_FOR_STATISTICS = 16
"""Batch size from which BatchNorm estimates statistics well (Wu and He 2018, "Group Normalization", figure 1)."""
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
"""Options of the run without arguments: small enough for three minutes on two fast cores, five on slow ones."""


class Choices:
    """Options and the values chosen for those that are None.

    Attributes:
        config: the user's options; :meth:`apply` adds the values chosen so far.
        picked: option -> value and reason, in the order of the choices.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.picked: dict[str, tuple[Any, str]] = {}

    def pick(self, name: str, value: Any, reason: str) -> Any:
        """Return the user's value of ``name``; without one, choose ``value`` and store the reason."""
        user_value = getattr(self.config, name)
        if user_value is not None:
            return user_value
        self.picked[name] = (value, reason)
        return value

    def set(self, name: str, value: Any, reason: str) -> None:
        """Replace the user's value of ``name``, and store the reason."""
        self.picked[name] = (value, reason)

    def apply(self) -> None:
        """Write the chosen values into ``config``."""
        self.config = replace(self.config, **{name: value for name, (value, _) in self.picked.items()})

    def lines(self) -> list[str]:
        """Return one line for each choice."""
        return [f"  {name} {value} ({reason})" for name, (value, reason) in self.picked.items()]


def resolve(
    config: TrainConfig,
    table: AnnotationTable,
    train: AnnotationTable,
    machine: MachineFacts,
    world: int = 1,
    *,
    opened: StartingWeights | None = None,
) -> tuple[TrainConfig, list[str]]:
    """Fill every option that is None. Returns the full config and one line for each choice.

    With ``minutes`` and no ``epochs``, the epochs and the options that depend on them stay None: they are measured
    later, on the model (see ``time_budget.py``).

    Args:
        table: all of the data.
        train: the training split.
        machine: device, cores and memory.
        world: number of training processes; each has its own batches, and the learning rate depends on all of their
            images.
        opened: the starting weights of :func:`named_weights`, so that their file is not read again.

    Raises:
        DataError: an option that cannot work, or data that is not annotated for the task.
    """
    check_ranges(config)
    choices = Choices(config)
    cuda = machine.cuda
    choices.pick("device", machine.device, "the fastest available")
    if not config.data:
        for name, value in demo_options(config).items():
            choices.pick(name, value, "for the demo set")
        choices.apply()
    task = choices.pick("task", *pick_task(choices.config, table))
    arch, weights = _pick_model(choices, task, cuda)
    assert opened is None or opened.source == weights
    if task != "classify":
        _pick_detector(choices, arch, StartingWeights.open(opened or weights, arch), train, cuda)
    if not config.resume:  # a resumed run keeps that of its checkpoint, also if it was written without one
        value_range, reason = training_value_range(train, config.value_range)
        if value_range is not None:
            choices.pick("value_range", value_range, reason)
    choices.pick("augment", "light", "small data sets overfit without")
    if config.minutes is None:
        choices.pick("epochs", 10, "as the published Penn-Fudan run")
    if config.linear_probe_epochs == "half" and config.minutes is None:
        epochs = choices.config.epochs or choices.picked.get("epochs", (10, ""))[0]
        choices.set("linear_probe_epochs", max(1, epochs // 2), "half of all epochs")
    _pick_optimizer(choices, task, arch, weights, len(train), cuda, world)
    choices.pick(
        "workers", machine.default_workers, "cores minus one, at most 4" if cuda else "the CPU is busy with training"
    )
    choices.apply()
    if choices.config.epochs is None:
        return choices.config, choices.lines()
    config, more = follow_epochs(choices.config, len(train), world)
    return config, choices.lines() + more


def named_weights(config: TrainConfig) -> StartingWeights | None:
    """Return the starting weights that the user or the demo set names; None if they are still to be chosen, from the
    published ones."""
    name = config.weights or (None if config.data else demo_options(config)["weights"])
    return None if name is None else StartingWeights.open(name, config.model)


def _pick_model(choices: Choices, task: str, cuda: bool) -> tuple[str, str]:
    """Choose architecture, starting weights and freezing. Returns the first two."""
    config = choices.config
    bundled = config.weights == BUNDLED
    bundled_model = FITTING[task], "the one that the bundled weights fit"
    arch = choices.pick("model", *(bundled_model if bundled else _model(task, cuda)))
    weights = choices.pick("weights", published_weights(arch), "small data sets need pretrained weights")
    stages = stages_to_load(weights, task)
    if stages is not None:
        _check_later_stages_are_trainable(config, stages)
    if config.trainable_layers is None:
        if weights == "none":
            choices.pick("freeze", "none", "there are no pretrained weights to keep")
        elif config.linear_probe_epochs is not None:
            choices.pick("freeze", "stem", "after the linear probe")
        elif stages is not None:
            choices.pick("freeze", "none", "a classifier uses only the first stages of the bundled weights")
        else:
            reason = "as in torchvision" if cuda else "halves the time on a CPU"
            choices.pick("freeze", "stem" if cuda else "backbone", reason)
    return arch, weights


def _pick_detector(choices: Choices, arch: str, weights: StartingWeights, train: AnnotationTable, cuda: bool) -> None:
    """Choose the options of detectors: input size, anchors, RoIs in the loss, detections per image."""
    if not cuda and architecture_of(arch).family != "ssdlite":
        choices.pick("image_size", CPU_IMAGE_SIZE, "a CPU needs twice the time for 800")
    _pick_anchors(choices, arch, weights, train)
    if not _is_one_stage(arch):
        choices.pick("rois_per_image", 128, "torchvision's 512 doubles the time and has no benefit")
    crowded = int(train.instances_per_image().max(initial=0))
    detections = max(100, round(1.5 * crowded))
    choices.pick("detections_per_image", detections, f"the most crowded training image has {crowded} objects")


def _pick_optimizer(choices: Choices, task: str, arch: str, weights: str, images: int, cuda: bool, world: int) -> None:
    """Choose the batch size and the options that depend on it: norm statistics, optimizer, learning rate."""
    config, scratch = choices.config, weights == "none"
    default_batch = (32 if cuda else 16) if task == "classify" else (4 if cuda else 2)
    batch = choices.pick("batch_size", max(1, min(default_batch, images)), f"{images} training images")
    if scratch and config.norm_eval:
        raise DataError("--norm-eval without pretrained weights: there are no statistics to keep; omit it")
    if task != "classify" and not scratch and batch < ENOUGH_FOR_STATISTICS:
        choices.pick("norm_eval", True, f"if the backbone has BatchNorm: statistics of {batch} images are too noisy")
    step_images = batch * config.accumulate * world
    usual = "as the published ImageNet weights were trained" if task == "classify" else "usual for R-CNN"
    reason = "works without tuning the learning rate" if scratch else usual
    optimizer = choices.pick("optimizer", "adamw" if scratch else "sgd", reason)
    if optimizer == "adamw":
        choices.pick("lr", 5e-4, "usual for adamw")
        choices.pick("beta2", 0.999, "usual for adamw")
    elif task == "detect" and _is_one_stage(arch):
        rate = min(0.01, 0.00125 * step_images)
        choices.pick(
            "lr", rate, f"0.00125 for each of {step_images} images, at most 0.01: half of R-CNN's, as published"
        )
    else:
        choices.pick("lr", min(0.02, 0.0025 * step_images), f"0.0025 for each of {step_images} images, at most 0.02")
    choices.pick("head_lr_mult", 1.0, "as in torchvision")
    choices.pick("weight_decay", 0.05 if optimizer == "adamw" else 5e-4, f"usual for {optimizer}")


def demo_options(config: TrainConfig) -> dict[str, Any]:
    """Return the options of ``DEMO`` that apply together with the user's options."""
    options = dict(DEMO)
    if config.model is None and config.task is not None:
        options["model"] = FITTING[config.task]
    arch = architecture_of(config.model or options["model"])
    if config.model not in (None, *FITTING.values()):
        options["weights"] = "none"  # the bundled ones do not fit, and others need a network connection
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
    """Fill the options that depend on the number of epochs and training images: warm-up and milestones."""
    epochs, lines = config.epochs or 1, []
    if config.warmup_steps is None:
        steps = -(-images // ((config.batch_size or 1) * config.accumulate * world))
        warmup = min(1000, steps, steps * epochs // 10)
        lines.append(f"  warmup_steps {warmup} (at most one epoch, a tenth of the run, 1000 steps)")
        config = replace(config, warmup_steps=warmup)
    if config.schedule == "multistep" and config.milestones is None:
        config = replace(config, milestones=[round(epochs * 2 / 3), round(epochs * 8 / 9)])
    return config, lines


def _pick_anchors(choices: Choices, arch: str, weights: StartingWeights, train: AnnotationTable) -> None:
    """Fit the anchors to the boxes if those of the architecture are too large for them."""
    config = choices.config
    if config.anchor_sizes is not None:
        return
    image_size = config.image_size or choices.picked.get("image_size", (None, ""))[0]
    points = train.keypoint_schema if architecture_of(arch).task == "keypoints" else None
    description = describe(arch, train.class_map, weights=weights, image_size=image_size, keypoints=points)
    sizes = fitted_anchor_sizes(arch, weights, train, description.preprocessing)
    if sizes is not None:
        reason = "there are no weights pretrained for other anchors, and small boxes need small anchors"
        choices.pick("anchor_sizes", sizes, reason)


def check_ranges(config: TrainConfig) -> None:
    """Raise DataError for a value that cannot work, with the name of its option."""
    minimums = {
        **dict.fromkeys(("epochs", "batch_size", "rois_per_image", "detections_per_image", "subset", "step_epochs"), 1),
        **dict.fromkeys(("accumulate", "keep_checkpoints", "eval_epochs", "mask_rois_per_image"), 1),
        "cached_views": 0,
        "skip_nonfinite": 0,
        **dict.fromkeys(("workers", "warmup_steps", "patience", "seed", "clip_norm", "weight_decay", "momentum"), 0),
        "decoded_limit": 0,
        "image_size": 32,
    }
    for name, minimum in minimums.items():
        value = getattr(config, name)
        if value is not None and not value >= minimum:
            raise DataError(f"--{name.replace('_', '-')} {value}: it must be at least {minimum}")
    if isinstance(config.linear_probe_epochs, int) and config.linear_probe_epochs < 1:
        raise DataError(f"--linear-probe-epochs {config.linear_probe_epochs}: it must be at least 1")
    for name in ("lr", "backbone_lr_mult", "head_lr_mult", "gamma", "minutes", "cache_limit", "finetune_lr_mult"):
        value = getattr(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise DataError(f"--{name.replace('_', '-')} {value}: it must be a number above 0")
    for name in ("ema", "beta2"):
        value = getattr(config, name)
        if value is not None and not 0 < value < 1:
            raise DataError(f"--{name} {value}: a decay is between 0 and 1, such as 0.999")
    if config.beta2 is not None and config.optimizer == "sgd":
        raise DataError(f"--beta2 {config.beta2} is an option of adamw; --optimizer sgd has --momentum")
    CheckpointInterval.parse(config.checkpoint_every)
    if config.minutes is not None and config.epochs is not None and not config.resume:
        raise DataError(
            f"--minutes {config.minutes:g} and --epochs {config.epochs}: the minutes determine the epochs; give only "
            "one of them (for a saved config with both: --minutes null for the same epochs, --epochs null to measure "
            "again)"
        )
    if config.freeze is not None and config.trainable_layers is not None:
        raise DataError(BOTH_FREEZES)
    if config.rois_per_image is not None and config.model is not None and _is_one_stage(config.model):
        raise DataError(f"--rois-per-image {config.rois_per_image}: {config.model} has one stage and samples no boxes")


def _check_later_stages_are_trainable(config: TrainConfig, stages: int) -> None:
    """Raise DataError if a randomly initialized part of the backbone would be frozen."""
    layers, needed = config.trainable_layers, len(BACKBONES[FITTING["classify"]].stages) - stages
    freezing = {
        "--freeze backbone": config.freeze == "backbone",
        "--linear-probe-epochs": config.linear_probe_epochs is not None,
        f"--trainable-layers {layers}": layers is not None and layers < needed,
    }
    conflicts = [option for option, is_set in freezing.items() if is_set]
    if conflicts:
        raise DataError(
            f"{conflicts[0]} with --weights bundled: a classifier uses only the first {stages} of their stages "
            "(the later ones were trained to detect shapes), and frozen, the others would stay random; train them "
            f"(--freeze none or stem, or --trainable-layers {needed} or more), or use --weights imagenet"
        )


def default_output(config: TrainConfig) -> Path:
    """Return the default run folder, runs/<data>-<model>; it is numbered if it exists."""
    source = Path(config.data).resolve().stem if config.data else demo_folder().name
    name = (config.model or "").replace(":", "-")  # timm:convnext_atto: some file systems do not allow colons
    return Path("runs") / f"{source}-{name}"


def _model(task: str, cuda: bool) -> tuple[str, str]:
    if task == "classify":
        return ("resnet50", "CUDA has enough memory") if cuda else ("resnet18", "fast on a CPU")
    family = {"segment": "maskrcnn", "keypoints": "keypointrcnn"}.get(task, "fasterrcnn")
    if cuda:
        return f"{family}_resnet50_fpn", "CUDA has enough memory"
    if task == "keypoints":
        return f"{family}_mobilenet_v3_large_fpn_slim", "the published keypoint head is too slow on a CPU"
    return f"{family}_mobilenet_v3_large_fpn", "on a CPU: about 30 times fewer operations than ResNet-50"


def _is_one_stage(arch: str) -> bool:
    return architecture_of(arch).family != "rcnn"
