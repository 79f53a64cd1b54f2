"""Choose the default input size of a detector, and say where many objects are too small in it."""

from __future__ import annotations

import detseg.options.defaults as defaults
from detseg.annotations import AnnotationTable
from detseg.annotations.object_size import helpful_size, input_sides, share_too_small, too_small_line
from detseg.models import describe
from detseg.models.build import architecture_of
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options.field import Default
from detseg.options.plan import Plan
from detseg.preprocess import Preprocessing, longer_side
from detseg.runtime.machine import MachineFacts


def default_input_size(
    arch: str, weights: StartingWeights | None, train: AnnotationTable, machine: MachineFacts
) -> Default | None:
    """Return the default of ``image_size`` with its reason; None for the size that the model has.

    Where more than a quarter of the training objects is too small at the usual size, it is the size at which a quarter
    is, as far as the machine can bear it.

    Args:
        weights: the starting weights; None for a resumed run.
    """
    architecture = architecture_of(arch)
    if architecture.family == "ssdlite":  # it is built for one size
        return None
    keeps_size = weights is None or weights.description is not None
    if machine.cuda and keeps_size:
        return None
    usual = architecture.image_size[0] if machine.cuda else int(defaults.IMAGE_SIZE_ON_CPU.value)
    sides = input_sides(train, Preprocessing(usual, longer_side(usual)))
    helpful, most = helpful_size(sides, usual), largest_size(machine)
    size = min(helpful, most)
    if size <= usual:
        return None if machine.cuda else defaults.IMAGE_SIZE_ON_CPU
    reason = f"at {usual}, {share_too_small(sides):.0%} of the training objects would be smaller than 8 px"
    return Default(size, reason + (f"; {helpful} would be too large for this machine" if helpful > most else ""))


def largest_size(machine: MachineFacts) -> int:
    """Return the largest input size that is chosen without being asked for; 0 for no more than the usual one."""
    limits = defaults.LARGEST_SIZE_ON_CUDA if machine.cuda else defaults.LARGEST_SIZE_ON_CPU
    memory = machine.gpu_memory if machine.cuda else machine.memory
    return next((size for gibibytes, size in limits if memory >= gibibytes * 2**30), 0)


def too_small_lines(plan: Plan, train: AnnotationTable, weights: StartingWeights | None) -> list[str]:
    """Return a line for the terminal if many training objects are too small at the input size of the plan.

    Args:
        weights: the starting weights of the plan if they are open already.
    """
    if plan.model.task == "classify":
        return []
    preprocessing = describe(
        plan.model.model,
        train.class_map,
        weights=weights or plan.model.weights,
        image_size=plan.model.image_size,
        keypoints=train.keypoint_schema if plan.model.task == "keypoints" else None,
        tiling=plan.tiles.tiling,
    ).preprocessing
    line = too_small_line(input_sides(train, preprocessing), preprocessing.min_size)
    return [f"  warning: {line}"] if line else []
