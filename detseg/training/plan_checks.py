"""Check that the options of a plan work together in every phase, before anything is computed."""

from __future__ import annotations

from dataclasses import replace

from detseg.annotations import AnnotationTable
from detseg.errors import DataError
from detseg.models import describe
from detseg.models.build import architecture_of
from detseg.models.freeze import LEVELS, freeze_levels
from detseg.models.loss_names import loss_names
from detseg.models.timm_backbone import backbone_spec
from detseg.models.weights.class_transfer import class_pairs
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options.plan import Phase, Plan
from detseg.training.loss_weights import parse_loss_weights

LIMITS = ("rois_per_image", "mask_rois_per_image", "detections_per_image")
"""Options of the plan that not every model has; None there means that this model does not use it."""


def checked(plan: Plan, train: AnnotationTable, weights: StartingWeights | None) -> Plan:
    """Return the plan, whose phases cache features where their parts are frozen.

    Args:
        train: the training split.
        weights: the starting weights; None for a resumed run, whose model is in its checkpoint.

    Raises:
        DataError: options that the model does not have, or that do not work in one of the phases.
    """
    if plan.run.tensorboard_weights and not plan.run.tensorboard:
        raise DataError("--tensorboard-weights: histograms are written for TensorBoard; add --tensorboard, or omit it")
    if plan.training.repeat_threshold is not None and plan.training.balance != "repeat":
        raise DataError(
            f"--repeat-threshold {plan.training.repeat_threshold:g} without --balance repeat has no effect; add it, or "
            "omit the threshold"
        )
    if weights is not None:
        _check_model(plan, train, weights)
    for phase in plan.phases:
        _check_phase(plan, phase, train)
    plan = replace(plan, phases=_with_caches(plan))
    if plan.training.echo > 1:
        _check_echo(plan)
    return plan


def _check_echo(plan: Plan) -> None:
    """Raise DataError where echoed images would save nothing: they are not decoded again, or all uses are equal."""
    echo = f"--echo {plan.training.echo}"
    if any(phase.cache != "off" for phase in plan.phases):
        raise DataError(
            f"{echo} with a frozen backbone: its features are cached, and images are not decoded again; add --cache "
            "off, or omit --echo"
        )
    if plan.cache.decoded_limit:
        raise DataError(
            f"{echo}: each image is decoded once and cached for later epochs (--decoded-limit "
            f"{plan.cache.decoded_limit:g}); omit --echo, or if the images do not fit, add --decoded-limit 0"
        )
    if plan.training.augment == "none":
        raise DataError(f"{echo} with --augment none: an image would be the same each time; omit one of them")


def _check_model(plan: Plan, train: AnnotationTable, weights: StartingWeights) -> None:
    """Raise DataError for values that no model of this architecture has."""
    model = plan.model
    architecture = architecture_of(model.model)
    if model.mask_rois_per_image is not None and model.task != "segment":
        raise DataError(
            f"--mask-rois-per-image {model.mask_rois_per_image}: {model.model} has no masks; omit it, or use a Mask "
            "R-CNN"
        )
    sizes = model.anchor_sizes
    if sizes is not None and not architecture.anchor_sizes:
        raise DataError(f"--anchor-sizes {sizes}: those of {model.model} are fixed; omit it")
    if sizes is not None and architecture.anchor_sizes and len(sizes) != len(architecture.anchor_sizes):
        raise DataError(
            f"--anchor-sizes {sizes}: {model.model} has {len(architecture.anchor_sizes)} feature maps; give one size "
            "for each"
        )
    describe(
        model.model,
        train.class_map,
        weights=weights,
        image_size=model.image_size,
        **{name: value for name in LIMITS if (value := getattr(model, name)) is not None},
        anchor_sizes=None if sizes is None else tuple((size,) for size in sizes),
        keypoints=train.keypoint_schema if model.task == "keypoints" else None,
        label_fields=train.label_fields,
        tiling=plan.tiles.tiling,
    )
    class_pairs(model.class_transfer, train.class_map.names)


def _check_phase(plan: Plan, phase: Phase, train: AnnotationTable) -> None:
    """Raise DataError for parts that cannot be frozen, and for losses that a phase does not have."""
    arch = plan.model.model
    architecture = architecture_of(arch)
    levels, stages = freeze_levels(architecture), len(backbone_spec(architecture).stages)
    if phase.freeze is not None and phase.freeze not in levels:
        raise DataError(f"--freeze {phase.freeze}: {arch} has no such part; use {', '.join(levels)}")
    if phase.trainable_layers is not None and phase.trainable_layers > stages:
        raise DataError(f"--trainable-layers {phase.trainable_layers}: the backbone of {arch} has 0 to {stages}")
    names = loss_names(plan.model.task, architecture.family, train.label_fields, rpn_frozen=phase.freeze == "rpn")
    parse_loss_weights(plan.training.loss_weights, names)


def _with_caches(plan: Plan) -> tuple[Phase, ...]:
    """Return the phases; those without a frozen backbone have no cache, nor have tiles.

    Raises:
        DataError: a cache is demanded, but no phase has a frozen backbone, or images are cut into tiles.
    """
    if plan.tiles.tile:
        if plan.cache.cache in ("memory", "disk"):
            raise DataError(
                f"--cache {plan.cache.cache} with --tile {plan.tiles.tile}: features of tiles are not cached; omit one "
                "of them (decoded images are cached anyway, see --decoded-limit)"
            )
        return tuple(replace(phase, cache="off") for phase in plan.phases)
    caching = [_has_frozen_backbone(phase) for phase in plan.phases]
    cache = plan.cache.cache
    if cache in ("memory", "disk") and not any(caching):
        raise DataError(
            f"--cache {cache}: only features of a frozen backbone can be cached; add --freeze backbone, or omit it"
        )
    return tuple(
        phase if frozen else replace(phase, cache="off") for phase, frozen in zip(plan.phases, caching, strict=True)
    )


def _has_frozen_backbone(phase: Phase) -> bool:
    if phase.trainable_layers is not None:
        return phase.trainable_layers == 0
    return LEVELS.index(phase.freeze or "none") >= LEVELS.index("backbone")
