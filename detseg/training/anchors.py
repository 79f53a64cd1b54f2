"""Anchor sizes for an RPN that starts from scratch: small enough for the boxes that the network will see."""

from __future__ import annotations

import numpy as np

from detseg.annotations import AnnotationTable
from detseg.models.build import architecture_of
from detseg.models.weights.state_files import read_state_dict
from detseg.preprocess import Preprocessing

SMALLEST = 8
"""Pixels. Two pixels of the finest map (stride 4): below, there is nothing left to see."""

SMALL_SHARE = 5
"""Percent. The boxes that decide how fine the anchors start; fewer would let single odd boxes decide."""


def fitted_anchor_sizes(
    arch: str, weights: str, train: AnnotationTable, preprocessing: Preprocessing
) -> list[int] | None:
    """One anchor side in pixels of the network's input for each map, each twice the one before; None to keep
    the architecture's own.

    They start at the power of two next to the side (square root of the area) below which ``SMALL_SHARE`` percent of
    the training boxes lie, at the size that the network sees them; never above the architecture's own, because large
    boxes are found by the later maps anyway.

    Kept are the anchors of a pretrained RPN or one-stage head (its weights mean these anchors), of models that have
    several sizes a map (but for RetinaNet's three of one octave) or none to choose, and those that are fine enough
    already.
    """
    architecture = architecture_of(arch)
    own, one_stage = architecture.anchor_sizes, architecture.family != "rcnn"
    rows = train.trained_rows()
    several = any(len(level) != 1 for level in own) and not one_stage
    if not own or several or not len(rows) or _has_anchors(weights, one_stage):
        return None
    scales = np.array([_scale(preprocessing, record.size_hw, record.orientation) for record in train])
    counts = train.instances_per_image()
    scale_of_row = dict(zip(train.instance_rows().tolist(), np.repeat(scales, counts).tolist(), strict=True))
    sides = np.sqrt(train.boxes_xywh[rows, 2] * train.boxes_xywh[rows, 3])
    sides *= np.array([scale_of_row[row] for row in rows.tolist()])
    smallest = 2 * SMALLEST if one_stage else SMALLEST  # whose finest map has stride 8
    start = max(smallest, 2 ** round(float(np.log2(np.percentile(sides, SMALL_SHARE)))))
    return None if start >= own[0][0] else [start * 2**level for level in range(len(own))]


def _scale(preprocessing: Preprocessing, size_hw: tuple[int, int], orientation: int) -> float:
    geometry = preprocessing.geometry(size_hw, orientation)
    return float(np.sqrt(np.prod(geometry.resized_hw) / np.prod(geometry.original_hw)))


def _has_anchors(weights: str, one_stage: bool) -> bool:
    """Whether these weights bring a trained RPN, or the head of a one-stage detector."""
    if weights in ("coco", "imagenet", "none"):
        return weights == "coco"
    prefix = "head.classification_head." if one_stage else "rpn."
    return any(name.removeprefix("module.").startswith(prefix) for name in read_state_dict(weights))
