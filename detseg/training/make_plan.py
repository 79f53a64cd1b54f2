"""Decide every option of a run in one pass, for the data, the starting weights and the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import detseg.options.defaults as defaults
from detseg.annotations import AnnotationTable
from detseg.annotations.obstacles import no_training_instances
from detseg.checkpoints.manager import CheckpointInterval
from detseg.errors import DataError
from detseg.models import describe
from detseg.models.backbones import BACKBONES
from detseg.models.build import architecture_of
from detseg.models.create import BOTH_FREEZES, published_weights
from detseg.models.weights.bundled import stages_to_load
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.options.defaults import BUNDLED, DEMO, FITTING
from detseg.options.field import Default
from detseg.options.plan import Plan
from detseg.runtime.machine import MachineFacts
from detseg.synthetic.demo.render import demo_folder
from detseg.training.anchors import fitted_anchor_sizes
from detseg.training.input_size import default_input_size
from detseg.training.phases import phases_of
from detseg.training.plan_checks import checked
from detseg.training.task_choice import pick_task
from detseg.training.tile_choice import choose_tiles, default_tile_size, tile_samples, tiling_of
from detseg.training.value_range_choice import training_value_range


class Decisions:
    """The options of a run while they are decided: the user's values, and those chosen so far with their reasons.

    Attributes:
        options: the user's options.
        chosen: option -> value, in the order of the decisions.
        reasons: option -> why, for each value that is reported.
    """

    def __init__(self, options: TrainConfig) -> None:
        self.options = options
        self.chosen: dict[str, Any] = {}
        self.reasons: dict[str, str] = {}

    def __getitem__(self, name: str) -> Any:
        """The value of an option: chosen, or the user's."""
        return self.chosen.get(name, getattr(self.options, name))

    def choose(self, name: str, default: Default) -> Any:
        """Return the user's value of ``name``; without one, choose the default and store its reason."""
        if self[name] is None:
            self.chosen[name] = default.value
            self.reasons[name] = default.reason
        return self[name]

    def rewrite(self, name: str, default: Default) -> None:
        """Replace the user's value, such as "half", by what it means here."""
        self.chosen[name], self.reasons[name] = default.value, default.reason

    def replace_none(self, values: Mapping[str, Any]) -> None:
        """Replace None by the value that means the same, for options that nothing was chosen for."""
        self.chosen |= {name: value for name, value in values.items() if self[name] is None}


def make_plan(
    options: TrainConfig,
    table: AnnotationTable,
    train: AnnotationTable,
    machine: MachineFacts,
    world: int = 1,
    *,
    weights: StartingWeights | None = None,
) -> Plan:
    """Decide every option that is None, each with a reason, and check that all of them work together.

    With ``minutes`` and no ``epochs``, the plan is that of one epoch, until the speed of the model is measured (see
    ``time_budget.py``).

    Args:
        options: as given by the user.
        table: all of the data.
        train: the training split.
        machine: device, cores and memory.
        world: number of training processes; each has its own batches, and the learning rate depends on all of their
            images.
        weights: the starting weights of :func:`named_weights`, so that their file is not read again.

    Raises:
        DataError: an option that cannot work, or data that is not annotated for the task.
    """
    check_options(options)
    decisions = Decisions(options)
    cuda = machine.cuda
    decisions.choose("device", Default(machine.device, "the fastest available"))
    if not options.data:
        for name, value in demo_options(options).items():
            decisions.choose(name, Default(value, "for the demo set"))
    task = decisions.choose("task", Default(*pick_task(decisions["task"], decisions["model"], table)))
    arch, source = _choose_model(decisions, task, cuda)
    # a resumed run has the model of its checkpoint; the file of its starting weights need not exist any more
    opened = None if options.resume else StartingWeights.open(weights or source, arch)
    if task != "classify":
        nothing = no_training_instances(train, table)
        if nothing:
            raise DataError(nothing)
    choose_tiles(decisions, opened, task)
    if task != "classify":
        _choose_detector(decisions, arch, opened, train, machine)
    decisions.replace_none({"tile": 0})
    tiles = tile_samples(decisions, arch, train)
    if not options.resume:  # a resumed run keeps that of its checkpoint, also if it was written without one
        value_range, reason = training_value_range(train, options.value_range)
        if value_range is not None:
            decisions.choose("value_range", Default(value_range, reason))
    decisions.choose("augment", defaults.AUGMENT)
    measure_epochs = decisions["minutes"] is not None and options.epochs is None
    most_epochs = decisions["epochs"] if measure_epochs else None
    epochs = most_epochs or 1 if measure_epochs else decisions.choose("epochs", defaults.EPOCHS)
    if options.linear_probe_epochs == "half":
        decisions.rewrite("linear_probe_epochs", Default(max(1, epochs // 2), "half of all epochs"))
    _choose_optimizer(decisions, task, arch, source, len(train), cuda, world)
    workers_reason = "cores minus one, at most 4" if cuda else "the CPU is busy with training"
    decisions.choose("workers", Default(machine.default_workers, workers_reason))
    decisions.replace_none({"eval_epochs": 1, "norm_eval": False, "epochs": epochs})
    samples = None if tiles is None else len(tiles)
    steps = epoch_steps(samples or len(train), decisions["batch_size"], options.echo, options.accumulate, world)
    for name, default in _schedule_defaults(options.schedule, epochs, steps).items():
        decisions.choose(name, default)
    plan = Plan.of(options, decisions.chosen, decisions.reasons)
    plan = replace(
        plan, measure_epochs=measure_epochs, most_epochs=most_epochs, tile_samples=None if tiles is None else len(tiles)
    )
    return checked(replace(plan, phases=phases_of(plan)), train, opened)


def with_epochs(plan: Plan, epochs: int, reason: str, images: int, world: int = 1) -> Plan:
    """Return the plan for another number of epochs, and the chosen values that depend on it.

    Args:
        images: number of training images.
        world: number of training processes.
    """
    training = replace(plan.training, epochs=epochs)
    steps = epoch_steps(plan.tile_samples or images, training.batch_size, training.echo, training.accumulate, world)
    chosen = {
        name: default
        for name, default in _schedule_defaults(plan.schedule.schedule, epochs, steps).items()
        if name in plan.reasons
    }
    values: dict[str, Any] = {name: default.value for name, default in chosen.items()}
    reasons = {**plan.reasons, "epochs": reason, **{name: default.reason for name, default in chosen.items()}}
    schedule = replace(plan.schedule, **values)
    (phase,) = plan.phases  # minutes do not work with a linear probe
    phases = (replace(phase, epochs=epochs),)
    return replace(
        plan,
        training=training,
        schedule=schedule,
        reasons=reasons,
        phases=phases,
        measure_epochs=False,
        most_epochs=None,
    )


def _schedule_defaults(schedule: str, epochs: int, epoch_steps: int) -> dict[str, Default]:
    """Return the options that depend on the number of epochs: warm-up and milestones."""
    most, share = defaults.MAX_WARMUP_STEPS, defaults.WARMUP_SHARE
    warmup = min(most, epoch_steps, epoch_steps * epochs // share)
    values = {"warmup_steps": Default(warmup, f"at most one epoch, a tenth of the run, {most} steps")}
    if schedule == "multistep":
        milestones = [round(epochs * part) for part in defaults.MILESTONES]
        values["milestones"] = Default(milestones, "2/3 and 8/9 of all epochs")
    return values


def named_weights(options: TrainConfig) -> StartingWeights | None:
    """Return the starting weights that the user or the demo set names; None if they are still to be chosen, from the
    published ones."""
    name = options.weights or (None if options.data else demo_options(options)["weights"])
    return None if name is None else StartingWeights.open(name, options.model)


def _choose_model(decisions: Decisions, task: str, cuda: bool) -> tuple[str, str]:
    """Choose architecture, starting weights and freezing. Returns the first two."""
    models = defaults.MODEL_ON_CUDA if cuda else defaults.MODEL_ON_CPU
    bundled = decisions["weights"] == BUNDLED
    arch = decisions.choose("model", (defaults.MODEL_FOR_BUNDLED if bundled else models)[task])
    published = defaults.COCO if published_weights(arch) == "coco" else defaults.IMAGENET
    weights = decisions.choose("weights", published)
    stages = stages_to_load(weights, task)
    if stages is not None:
        _check_later_stages_are_trainable(decisions, stages)
    if decisions["trainable_layers"] is None:
        if weights == "none":
            decisions.choose("freeze", defaults.FREEZE_NOTHING)
        elif decisions["linear_probe_epochs"] is not None:
            decisions.choose("freeze", defaults.FREEZE_FOR_PROBE)
        elif stages is not None:
            decisions.choose("freeze", defaults.FREEZE_BUNDLED_CLASSIFIER)
        else:
            decisions.choose("freeze", defaults.FREEZE_ON_CUDA if cuda else defaults.FREEZE_ON_CPU)
    return arch, weights


def _choose_detector(
    decisions: Decisions, arch: str, weights: StartingWeights | None, train: AnnotationTable, machine: MachineFacts
) -> None:
    """Choose the options of detectors: input size, anchors, RoIs in the loss, detections per image."""
    size = None
    if decisions["image_size"] is None:
        size = default_tile_size(arch, decisions) or default_input_size(arch, weights, train, machine)
    if size is not None:
        decisions.choose("image_size", size)
    if weights is not None:
        _choose_anchors(decisions, arch, weights, train)
    if not _is_one_stage(arch):
        decisions.choose("rois_per_image", defaults.ROIS_PER_IMAGE)
    crowded = int(train.instances_per_image().max(initial=0))
    detections = max(defaults.DETECTIONS_PER_IMAGE, round(defaults.DETECTIONS_PER_OBJECT * crowded))
    reason = f"the most crowded training image has {crowded} objects"
    decisions.choose("detections_per_image", Default(detections, reason))


def _choose_optimizer(
    decisions: Decisions, task: str, arch: str, weights: str, images: int, cuda: bool, world: int
) -> None:
    """Choose the batch size and the options that depend on it: norm statistics, optimizer, learning rate."""
    scratch, classify = weights == "none", task == "classify"
    if classify:
        usual = defaults.CLASSIFIER_BATCH_SIZE_ON_CUDA if cuda else defaults.CLASSIFIER_BATCH_SIZE_ON_CPU
    else:
        usual = defaults.BATCH_SIZE_ON_CUDA if cuda else defaults.BATCH_SIZE_ON_CPU
    batch = decisions.choose("batch_size", Default(max(1, min(usual.value, images)), f"{images} training images"))
    if scratch and decisions["norm_eval"]:
        raise DataError("--norm-eval without pretrained weights: there are no statistics to keep; omit it")
    if not classify and not scratch and batch < defaults.ENOUGH_FOR_STATISTICS:
        reason = f"if the backbone has BatchNorm: statistics of {batch} images are too noisy"
        decisions.choose("norm_eval", Default(True, reason))
    sgd = defaults.SGD_FOR_CLASSIFIERS if classify else defaults.SGD_FOR_DETECTORS
    optimizer = decisions.choose("optimizer", defaults.ADAMW if scratch else sgd)
    if optimizer == "adamw":
        decisions.choose("lr", defaults.ADAMW_LR)
        decisions.choose("beta2", defaults.BETA2)
    else:
        one_stage = task == "detect" and _is_one_stage(arch)
        decisions.choose("lr", _sgd_rate(batch * decisions["accumulate"] * world, one_stage=one_stage))
    decisions.choose("head_lr_mult", defaults.HEAD_LR_MULT)
    decisions.choose("weight_decay", defaults.WEIGHT_DECAY[optimizer])


def _sgd_rate(step_images: int, *, one_stage: bool) -> Default:
    """Return the learning rate of sgd for a step of this many images."""
    rate, most, source = defaults.LR_PER_IMAGE, defaults.MAX_LR, ""
    if one_stage:
        rate, most = defaults.ONE_STAGE_LR_PER_IMAGE, defaults.MAX_ONE_STAGE_LR
        source = ": half of R-CNN's, as published"
    return Default(
        min(most, rate * step_images), f"{rate:g} for each of {step_images} images, at most {most:g}{source}"
    )


def epoch_steps(samples: int, batch_size: int, echo: int, accumulate: int, world: int) -> int:
    """Return the steps of an epoch."""
    if echo == 1:
        return -(-samples // (batch_size * accumulate * world))
    return -(-(-(-samples // (batch_size * world)) * echo) // accumulate)


def demo_options(options: TrainConfig) -> dict[str, Any]:
    """Return the options of ``DEMO`` that apply together with the user's options."""
    demo = dict(DEMO)
    if options.model is None and options.task is not None:
        demo["model"] = FITTING[options.task]
    arch = architecture_of(options.model or demo["model"])
    if options.model not in (None, *FITTING.values()):
        demo["weights"] = "none"  # the bundled ones do not fit, and others need a network connection
    if arch.family != "rcnn":
        del demo["rois_per_image"]
    if arch.task != "segment":
        del demo["mask_rois_per_image"]
    if options.optimizer == "sgd":
        del demo["beta2"], demo["lr"]
    if options.minutes is not None:
        del demo["epochs"]
    if options.tile:
        del demo["image_size"]
    if options.epochs is not None or options.linear_probe_epochs is not None or options.patience:
        del demo["minutes"]  # the user decides on the epochs, or they depend on the scores
    return demo


def _choose_anchors(decisions: Decisions, arch: str, weights: StartingWeights, train: AnnotationTable) -> None:
    """Fit the anchors to the boxes if those of the architecture are too large for them."""
    if decisions["anchor_sizes"] is not None:
        return
    points = train.keypoint_schema if architecture_of(arch).task == "keypoints" else None
    description = describe(
        arch,
        train.class_map,
        weights=weights,
        image_size=decisions["image_size"],
        keypoints=points,
        tiling=tiling_of(decisions),
    )
    sizes = fitted_anchor_sizes(arch, weights, train, description.preprocessing)
    if sizes is not None:
        reason = "there are no weights pretrained for other anchors, and small boxes need small anchors"
        decisions.choose("anchor_sizes", Default(sizes, reason))


def check_options(options: TrainConfig) -> None:
    """Raise DataError for options that contradict each other, whatever the data."""
    if options.beta2 is not None and options.optimizer == "sgd":
        raise DataError(f"--beta2 {options.beta2} is an option of adamw; --optimizer sgd has --momentum")
    CheckpointInterval.parse(options.checkpoint_every)
    if options.minutes is not None and options.epochs is not None and not options.resume:
        raise DataError(
            f"--minutes {options.minutes:g} and --epochs {options.epochs}: the minutes determine the epochs; give only "
            "one of them (for a saved config with both: --minutes null for the same epochs, --epochs null to measure "
            "again)"
        )
    if options.batch_size == 0:
        raise DataError("--batch-size 0: the batch size is measured when a run starts; give a number to make a plan")
    if options.freeze is not None and options.trainable_layers is not None:
        raise DataError(BOTH_FREEZES)
    if options.rois_per_image is not None and options.model is not None and _is_one_stage(options.model):
        raise DataError(
            f"--rois-per-image {options.rois_per_image}: {options.model} has one stage and samples no boxes"
        )


def _check_later_stages_are_trainable(decisions: Decisions, stages: int) -> None:
    """Raise DataError if a randomly initialized part of the backbone would be frozen."""
    layers, needed = decisions["trainable_layers"], len(BACKBONES[FITTING["classify"]].stages) - stages
    freezing = {
        "--freeze backbone": decisions["freeze"] == "backbone",
        "--linear-probe-epochs": decisions["linear_probe_epochs"] is not None,
        f"--trainable-layers {layers}": layers is not None and layers < needed,
    }
    conflicts = [option for option, is_set in freezing.items() if is_set]
    if conflicts:
        raise DataError(
            f"{conflicts[0]} with --weights bundled: a classifier uses only the first {stages} of their stages "
            "(the later ones were trained to detect shapes), and frozen, the others would stay random; train them "
            f"(--freeze none or stem, or --trainable-layers {needed} or more), or use --weights imagenet"
        )


def default_output(plan: Plan) -> Path:
    """Return the default run folder, runs/<data>-<model>; it is numbered if it exists."""
    source = Path(plan.data.data).resolve().stem if plan.data.data else demo_folder().name
    name = plan.model.model.replace(":", "-")  # timm:convnext_atto: some file systems do not allow colons
    return Path("runs") / f"{source}-{name}"


def _is_one_stage(arch: str) -> bool:
    return architecture_of(arch).family != "rcnn"
