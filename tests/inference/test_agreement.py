"""Predictions are compared by class and place; what differs is found, and equal scores are no difference."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from detseg.inference.agreement import Agreement, compare
from detseg.postprocess import mask_to_box_rle
from detseg.structures import RLE, ClassPrediction, FieldPredictions, Prediction

LIMITS = SimpleNamespace(score_threshold=0.05, detections_per_image=5)


def rectangle(box: tuple[int, int, int, int]) -> RLE:
    mask = np.zeros((60, 80), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask_to_box_rle(mask)


BOXES = [(0, 0, 20, 20), (30, 10, 60, 40), (5, 25, 25, 55)]
FIRST = Prediction(
    (60, 80),
    np.array(BOXES, np.float32),
    np.array([1, 2, 1]),
    np.array([0.9, 0.7, 0.3], np.float32),
    [rectangle(box) for box in BOXES],
    np.full((3, 2, 3), 10, np.float32),
)


def agreement(second: Prediction, first: Prediction = FIRST) -> Agreement:
    return compare(first, second, "a.jpg", LIMITS)


def test_equal_predictions_agree_in_any_order_of_equal_scores() -> None:
    assert agreement(FIRST) == Agreement(compared=3)
    tied = replace(FIRST, scores=np.array([0.9, 0.700001, 0.7], np.float32))
    order = [0, 2, 1]
    swapped = Prediction(
        tied.size_hw,
        tied.boxes[order],
        tied.labels[order],
        tied.scores,
        [tied.rles[i] for i in order],  # type: ignore[index]
        tied.keypoints,
    )
    found = agreement(swapped, tied)
    assert found.is_within_tolerance
    assert (found.compared, found.ties, found.unmatched) == (1, 4, 0)
    assert not (agreement(replace(swapped, scores=FIRST.scores))).is_within_tolerance, "control: scores differ"


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": FIRST.boxes + np.float32(0.05)},
        {"boxes": FIRST.boxes[:, [1, 0, 3, 2]]},
        {"labels": np.array([1, 1, 1])},
        {"scores": FIRST.scores + np.float32(0.001)},
        {"rles": [rectangle((x, y, x2, y2 - 1)) for x, y, x2, y2 in BOXES]},
        {"keypoints": np.full((3, 2, 3), 11, np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_difference_is_found(change: dict[str, object]) -> None:
    found = agreement(replace(FIRST, **change))  # type: ignore[arg-type]
    assert not found.is_within_tolerance
    assert found.worst == "a.jpg"
    assert not (Agreement() + found + Agreement()).is_within_tolerance


def test_missing_detections_count_unless_they_may_have_been_cut() -> None:
    assert agreement(FIRST.above(0.5)).unmatched == 1
    at_threshold = replace(FIRST, scores=np.array([0.9, 0.7, 0.050001], np.float32))
    found = agreement(at_threshold.above(0.5), at_threshold)
    assert (found.unmatched, found.ties, found.is_within_tolerance) == (0, 1, True)
    empty = FIRST.above(1)
    assert agreement(empty, empty) == Agreement()
    assert agreement(empty).unmatched == 3


def test_boxes_without_an_area_match_themselves() -> None:
    boxes = FIRST.boxes.copy()
    boxes[0, 2] = boxes[0, 0]
    assert agreement(replace(FIRST, boxes=boxes), replace(FIRST, boxes=boxes)).is_within_tolerance


def test_classifiers() -> None:
    first, second = (ClassPrediction(np.array([value, 1 - value], np.float32)) for value in (0.4, 0.41))
    assert compare(first, first, "a", LIMITS).is_within_tolerance
    assert compare(first, second, "a", LIMITS).scores == pytest.approx(0.01, rel=1e-4)
    fields = [FieldPredictions({"colour": first, "shape": part}) for part in (first, second)]
    assert not compare(*fields, "a", LIMITS).is_within_tolerance
    assert not compare(first, fields[0], "a", LIMITS).is_within_tolerance, "another kind of result"
    assert "0.01" in compare(first, second, "a", LIMITS).line("classify")
