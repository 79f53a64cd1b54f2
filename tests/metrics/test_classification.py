"""Accuracy of classifiers compared with counts by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.metrics import ClassificationEvaluator
from detseg.structures import ClassPrediction


def prediction(*probabilities: float) -> ClassPrediction:
    return ClassPrediction(np.array(probabilities, np.float32))


def certain(index: int, classes: int) -> ClassPrediction:
    return prediction(*(float(i == index) for i in range(classes)))


def evaluated(names: tuple[str, ...], pairs: list[tuple[int, int]]) -> ClassificationEvaluator:
    """An evaluator with (ground truth, prediction) pairs, added as one batch."""
    evaluator = ClassificationEvaluator(ClassMap(names))
    targets = [
        {"image_id": torch.tensor(i), "class_index": torch.tensor(ground_truth)}
        for i, (ground_truth, _) in enumerate(pairs)
    ]
    evaluator.update(targets, [certain(predicted, len(names)) for _, predicted in pairs])
    return evaluator


@pytest.mark.parametrize(
    ("pairs", "accuracy", "balanced", "recalls"),
    [
        ([], None, None, [None, None, None]),
        ([(1, 1)], 1.0, 1.0, [None, 1.0, None]),
        ([(0, 0), (0, 0), (0, 1), (1, 0)], 0.5, 1 / 3, [2 / 3, 0.0, None]),
    ],
)
def test_numbers(
    pairs: list[tuple[int, int]], accuracy: float | None, balanced: float | None, recalls: list[float | None]
) -> None:
    metrics = evaluated(("a", "b", "c"), pairs).compute()
    assert (metrics.accuracy, metrics.best()) == (accuracy, accuracy or 0.0)
    assert metrics.balanced_accuracy == pytest.approx(balanced)
    assert list(metrics.per_class.values()) == recalls
    assert metrics.confusion.dtype == np.int64
    assert metrics.confusion.sum() == metrics.images == len(pairs)
    assert metrics.top5 is None
    value = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert value["accuracy"] == accuracy
    assert value["per_class"]["a"]["images"] == sum(ground_truth == 0 for ground_truth, _ in pairs)
    assert not any("None" in line for line in metrics.lines())


def test_rows_of_the_confusion_matrix_are_the_ground_truth() -> None:
    metrics = evaluated(("a", "b"), [(0, 1), (0, 1), (1, 1)]).compute()
    np.testing.assert_array_equal(metrics.confusion, [[0, 2], [0, 1]])
    assert metrics.lines()[-2].split() == ["a", "2", "0.000", "b", "(2)"]


def test_top5_only_with_more_than_5_classes() -> None:
    names = tuple("abcdefg")
    evaluator = ClassificationEvaluator(ClassMap(names))
    probabilities = prediction(0.3, 0.2, 0.15, 0.1, 0.1, 0.1, 0.05)  # ties: the lower index is first
    targets = [{"image_id": i, "class_index": i} for i in range(7)]
    evaluator.update(targets, [probabilities] * 7)
    metrics = evaluator.compute()
    assert metrics.top5 == 5 / 7
    assert metrics.scalars() == {"accuracy": 1 / 7, "balanced_accuracy": 1 / 7, "top5_accuracy": 5 / 7}


def test_repeated_images_are_ignored() -> None:
    evaluator = evaluated(("a", "b"), [(0, 0), (1, 0)])
    before = evaluator.compute()
    evaluator.update([{"image_id": 0, "class_index": 0}], [certain(0, 2)])
    after = evaluator.compute()
    assert after.accuracy == before.accuracy == 0.5
    assert (evaluator.images_seen, evaluator.repeats, len(after.notes)) == (2, 1, 1)
    evaluator.reset()
    assert (evaluator.images_seen, evaluator.compute().images) == (0, 0)
    assert before.images == 2  # metrics have a copy of the counts


@pytest.mark.parametrize(
    ("target", "output", "message"),
    [
        ({"class_index": -1}, certain(0, 2), r"image 5: class_index is -1, but must be one of 0\.\.1"),
        ({"class_index": 2}, certain(0, 2), "class_index is 2"),
        ({"class_index": torch.tensor([0, 1])}, certain(0, 2), r"class_index is \[0, 1\]"),
        ({"class_index": 0}, certain(0, 3), "2 finite probabilities are needed"),
        ({"class_index": 0}, prediction(np.nan, 0.5), "not finite"),
    ],
)
def test_invalid_targets_and_outputs(target: dict[str, Any], output: ClassPrediction, message: str) -> None:
    evaluator = ClassificationEvaluator(ClassMap(("a", "b")))
    with pytest.raises(DataError, match=message):
        evaluator.update([{"image_id": 5, **target}], [output])
    with pytest.raises(DataError, match="1 targets but 0 outputs"):
        evaluator.update([{"image_id": 5, **target}], [])
