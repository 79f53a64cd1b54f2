"""Average the outputs for an image and for its mirror image (flip averaging, a test-time augmentation)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.inference.backend import NetworkOutput
from detseg.inference.pairs import matched_pairs
from detseg.structures import ClassPrediction, FieldPredictions, RawPrediction

ONE_SIDED = 0.5
"""Factor of the score of a detection that only one output has: the mean with a score of 0."""


def mirrored(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [h, w, 3] with left and right exchanged, contiguous."""
    return np.ascontiguousarray(pixels[:, ::-1])


def merged(first: NetworkOutput, second: NetworkOutput, width: int, description: Any) -> NetworkOutput:
    """One output from that for an image and that for its mirror image.

    Probabilities of classes are averaged. Boxes, masks and keypoints of one object are averaged, weighted by their
    scores (weighted boxes fusion, Solovyev et al. 2021, with two models of equal weight), and its score is the mean;
    that of a detection that one output lacks is halved. Below the model's score threshold detections are dropped.

    Args:
        second: for the mirror image, in its pixels.
        width: of the network's input in pixels.
        description: of the network: thresholds, limits, keypoints.
    """
    if isinstance(first, FieldPredictions):
        assert isinstance(second, FieldPredictions), "both outputs are of one network"
        return FieldPredictions({name: _mean(part, second.fields[name]) for name, part in first.fields.items()})
    if isinstance(first, ClassPrediction):
        assert isinstance(second, ClassPrediction), "both outputs are of one network"
        return _mean(first, second)
    assert isinstance(second, RawPrediction), "both outputs are of one network"
    swaps = description.keypoints.swaps if description.keypoints else ()
    other = _unmirrored(second, width, swaps)
    pairs = matched_pairs(first, other)
    rows = [np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1)]
    alone = [np.setdiff1d(np.arange(len(raw.scores)), rows[side]) for side, raw in enumerate((first, other))]
    parts = [
        _average(_rows(first, rows[0]), _rows(other, rows[1])),
        *(_weaker(_rows(raw, index)) for raw, index in zip((first, other), alone, strict=True)),
    ]
    every = RawPrediction(
        *(
            None if getattr(first, name) is None else np.concatenate([getattr(part, name) for part in parts])
            for name in ("boxes", "labels", "scores", "mask_probs", "keypoints")
        )  # type: ignore[arg-type]
    )
    order = np.argsort(-every.scores, kind="stable")[: description.detections_per_image]
    return _rows(every, order[every.scores[order] >= description.score_threshold])


def _mean(first: ClassPrediction, second: ClassPrediction) -> ClassPrediction:
    return ClassPrediction((first.probabilities + second.probabilities) / np.float32(2))


def _unmirrored(raw: RawPrediction, width: int, swaps: Any) -> RawPrediction:
    """The output in the pixels of the image that is not mirrored."""
    boxes = raw.boxes.copy()
    boxes[:, [0, 2]] = width - raw.boxes[:, [2, 0]]
    masks = None if raw.mask_probs is None else raw.mask_probs[..., ::-1]
    keypoints = None
    if raw.keypoints is not None:
        order = np.arange(raw.keypoints.shape[1])
        for a, b in swaps:
            order[a], order[b] = b, a
        keypoints = raw.keypoints[:, order]
        keypoints[..., 0] = width - keypoints[..., 0]
    return replace(raw, boxes=boxes, mask_probs=masks, keypoints=keypoints)


def _rows(raw: RawPrediction, rows: npt.NDArray[np.int64]) -> RawPrediction:
    masks = None if raw.mask_probs is None else raw.mask_probs[rows]
    keypoints = None if raw.keypoints is None else raw.keypoints[rows]
    return RawPrediction(raw.boxes[rows], raw.labels[rows], raw.scores[rows], masks, keypoints)


def _average(first: RawPrediction, second: RawPrediction) -> RawPrediction:
    """The mean of detections that belong together, row by row, weighted by their scores."""
    weights = [raw.scores.astype(np.float64) for raw in (first, second)]
    share = weights[0] / np.maximum(weights[0] + weights[1], np.finfo(np.float64).tiny)

    def mean(name: str) -> Any:
        a, b = getattr(first, name), getattr(second, name)
        if a is None:
            return None
        factor = share.reshape(-1, *(1,) * (a.ndim - 1))
        return (b + (a.astype(np.float64) - b) * factor).astype(np.float32)  # exactly a where both are equal

    scores = (first.scores + second.scores) / np.float32(2)
    return RawPrediction(mean("boxes"), first.labels, scores, mean("mask_probs"), mean("keypoints"))


def _weaker(raw: RawPrediction) -> RawPrediction:
    return replace(raw, scores=raw.scores * np.float32(ONE_SIDED))
