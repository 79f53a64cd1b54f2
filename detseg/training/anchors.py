"""Choose anchor sizes for an RPN trained from scratch: small enough for the boxes at the network's input size."""

from __future__ import annotations

import numpy as np

from detseg.annotations import AnnotationTable
from detseg.models.build import architecture_of
from detseg.models.weights.starting_weights import StartingWeights
from detseg.preprocess import Preprocessing

SMALLEST = 8
"""Side in pixels: two pixels of the finest feature map (stride 4); smaller objects are not visible in it."""

SMALL_SHARE = 5
"""Percentile of the box sides that determines the smallest anchor; a lower one would depend on single outliers."""


def fitted_anchor_sizes(
    arch: str, weights: str | StartingWeights, train: AnnotationTable, preprocessing: Preprocessing
) -> list[int] | None:
    """Return one anchor side in pixels of the network's input for each map, each twice the previous one; None for
    the architecture's anchors.

    The first is the power of two nearest to the ``SMALL_SHARE`` percentile of the sides (square root of the area) of
    the training boxes at the network's input size; never above the architecture's first, because the later maps detect
    large boxes anyway.

    The architecture's anchors stay for a pretrained RPN or one-stage head (its weights belong to these anchors), for
    models with several sizes per map (except RetinaNet's three of one octave) or without anchors, and if they are
    small enough.
    """
    architecture = architecture_of(arch)
    default_sizes, one_stage = architecture.anchor_sizes, architecture.family != "rcnn"
    rows = train.trained_rows()
    several = any(len(level) != 1 for level in default_sizes) and not one_stage
    if not default_sizes or several or not len(rows) or _has_anchors(StartingWeights.open(weights, arch), one_stage):
        return None
    scales = np.array([_scale(preprocessing, record.size_hw, record.orientation) for record in train])
    counts = train.instances_per_image()
    scale_of_row = dict(zip(train.instance_rows().tolist(), np.repeat(scales, counts).tolist(), strict=True))
    sides = np.sqrt(train.boxes_xywh[rows, 2] * train.boxes_xywh[rows, 3])
    sides *= np.array([scale_of_row[row] for row in rows.tolist()])
    smallest = 2 * SMALLEST if one_stage else SMALLEST  # their finest map has stride 8
    start = max(smallest, 2 ** round(float(np.log2(np.percentile(sides, SMALL_SHARE)))))
    return None if start >= default_sizes[0][0] else [start * 2**level for level in range(len(default_sizes))]


def _scale(preprocessing: Preprocessing, size_hw: tuple[int, int], orientation: int) -> float:
    geometry = preprocessing.geometry(size_hw, orientation)
    return float(np.sqrt(np.prod(geometry.resized_hw) / np.prod(geometry.original_hw)))


def _has_anchors(weights: StartingWeights, one_stage: bool) -> bool:
    """Whether these weights contain a trained RPN, or the head of a one-stage detector."""
    if not weights.is_file:
        return weights.source == "coco"
    prefix = "head.classification_head." if one_stage else "rpn."
    return any(name.removeprefix("module.").startswith(prefix) for name in weights.state)
