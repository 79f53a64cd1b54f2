"""From a name to a model that is ready to train: built, filled with weights, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models import Classifier, Detector, LoadReport, build_model, describe, freeze, load_weights, part_table
from detseg.models.build import architecture_of
from detseg.models.freeze import set_trainable_layers

Model = Detector | Classifier

BOTH_FREEZES = "--freeze and --trainable-layers say the same thing in two ways; give one of them"


@dataclass(frozen=True)
class Created:
    """A new model and what is known about it.

    Attributes:
        model: ready for an optimizer, in training mode, on the CPU.
        report: which weights were loaded and which start from random numbers.
        lines: both as a table for the terminal.
    """

    model: Model
    report: LoadReport
    lines: list[str]


def create_model(
    arch: str,
    classes: ClassMap | list[str],
    *,
    weights: str | None = None,
    freeze_level: str | None = None,
    trainable_layers: int | None = None,
    image_size: int | None = None,
    rois_per_image: int = 128,
    detections_per_image: int = 100,
    anchor_sizes: Sequence[int] | None = None,
) -> Created:
    """Build ``arch`` for ``classes``, load ``weights``, freeze.

    Args:
        arch: a name such as "maskrcnn_resnet50_fpn"; an unknown one is a DataError that lists all.
        classes: the user's K classes.
        weights: "coco", "imagenet", "none" or a file (see ``models/weights.py``); None for COCO weights if there are
            any of this architecture, else ImageNet's.
        freeze_level: "none", "stem", "body", "neck" or "rpn"; exclusive with ``trainable_layers`` (0..5).
        image_size: length of the shorter side in pixels; None for what the weights were trained with.
        anchor_sizes: one anchor side in pixels for each FPN map; None for the architecture's own.
    """
    weights = weights or published_weights(arch)
    class_map = classes if isinstance(classes, ClassMap) else ClassMap.from_names(classes)
    description = describe(
        arch,
        class_map,
        weights=weights,
        image_size=image_size,
        rois_per_image=rois_per_image,
        detections_per_image=detections_per_image,
        anchor_sizes=None if anchor_sizes is None else tuple((size,) for size in anchor_sizes),
    )
    model = build_model(description)
    report = load_weights(model, weights)
    freeze_as(model, freeze_level, trainable_layers)
    return Created(model, report, [*report.lines(), *(part.line() for part in part_table(model))])


def freeze_as(model: Model, freeze_level: str | None, trainable_layers: int | None) -> None:
    """Freeze up to a level, or all but so many body layers; nothing if neither is given.

    Raises:
        DataError: both are given.
    """
    if freeze_level is not None and trainable_layers is not None:
        raise DataError(BOTH_FREEZES)
    if trainable_layers is not None:
        set_trainable_layers(model, trainable_layers)
    else:
        freeze(model, freeze_level or "none")


def published_weights(arch: str) -> str:
    """ "coco" for an architecture that has such weights, else "imagenet"."""
    return "coco" if architecture_of(arch).coco is not None else "imagenet"
