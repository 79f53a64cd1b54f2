"""Accuracy of several label fields compared with counts by hand, and with one evaluator per field."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.metrics import ClassificationEvaluator, FieldEvaluator
from detseg.structures import ClassPrediction, FieldPredictions

COLOUR = LabelField("colour", ClassMap(("red", "blue", "grey")))
SHAPE = LabelField("shape", ClassMap(tuple("abcdefg")))
Pair = tuple[int, int]


def certain(index: int, classes: int) -> ClassPrediction:
    return ClassPrediction(np.eye(classes, dtype=np.float32)[index])


def predictions(colour: int, shape: int) -> FieldPredictions:
    return FieldPredictions({"colour": certain(colour, 3), "shape": certain(shape, 7)})


def evaluated(rows: list[tuple[Pair, Pair]]) -> FieldEvaluator:
    """An evaluator with (ground truth, prediction) of both fields for each image, added as one batch."""
    evaluator = FieldEvaluator([COLOUR, SHAPE])
    targets = [
        {"image_id": torch.tensor(i), "class_index": torch.tensor(ground_truth)}
        for i, (ground_truth, _) in enumerate(rows)
    ]
    evaluator.update(targets, [predictions(*predicted) for _, predicted in rows])
    return evaluator


@pytest.mark.parametrize(
    ("rows", "colour", "shape", "mean", "unlabelled"),
    [
        ([], None, None, None, (0, 0)),
        ([((1, 6), (1, 6))], 1.0, 1.0, 1.0, (0, 0)),
        ([((1, -1), (1, 6))], 1.0, None, 1.0, (0, 1)),
        ([((-1, -1), (0, 0))], None, None, None, (1, 1)),
        ([((0, 0), (0, 1)), ((1, 0), (0, 0)), ((-1, 2), (0, 2))], 1 / 2, 2 / 3, 7 / 12, (1, 0)),
    ],
)
def test_numbers(
    rows: list[tuple[Pair, Pair]],
    colour: float | None,
    shape: float | None,
    mean: float | None,
    unlabelled: tuple[int, int],
) -> None:
    metrics = evaluated(rows).compute()
    assert metrics.fields["colour"].accuracy == colour
    assert metrics.fields["shape"].accuracy == shape
    assert metrics.accuracy == pytest.approx(mean)
    assert metrics.best() == pytest.approx(mean or 0.0)
    assert tuple(metrics.unlabelled.values()) == unlabelled
    assert metrics.fields["colour"].images == len(rows) - unlabelled[0]
    scalars = metrics.scalars()
    assert list(scalars) == [
        *("accuracy", "accuracy_colour", "balanced_accuracy_colour"),
        *("accuracy_shape", "balanced_accuracy_shape", "top5_accuracy_shape"),
    ]
    value = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert value["accuracy"] == metrics.accuracy
    assert value["fields"]["shape"]["unlabelled"] == unlabelled[1]
    text = "\n".join(metrics.lines())
    assert "None" not in text
    assert ("have no label for it" in text) == any(unlabelled)


def test_each_field_equals_a_separate_evaluator() -> None:
    generator = np.random.default_rng(3)
    targets, outputs = [], []
    separate = {field.name: ClassificationEvaluator(field.class_map) for field in (COLOUR, SHAPE)}
    for image_id in range(60):
        ground_truth = [int(generator.integers(-1, len(field))) for field in (COLOUR, SHAPE)]
        outputs_by_field = {
            field.name: ClassPrediction(generator.dirichlet(np.ones(len(field))).astype(np.float32))
            for field in (COLOUR, SHAPE)
        }
        targets.append({"image_id": image_id, "class_index": torch.tensor(ground_truth)})
        outputs.append(FieldPredictions(outputs_by_field))
        for name, index in zip(separate, ground_truth, strict=True):
            if index >= 0:
                separate[name].update([{"image_id": image_id, "class_index": index}], [outputs_by_field[name]])
    evaluator = FieldEvaluator([COLOUR, SHAPE])
    evaluator.update(targets, outputs)
    metrics = evaluator.compute()
    for name, other in separate.items():
        assert metrics.fields[name].to_dict() == other.compute().to_dict()
    evaluator.update(targets[:9], outputs[:9])  # repeated images are ignored
    repeated = evaluator.compute()
    assert (repeated.scalars(), repeated.unlabelled) == (metrics.scalars(), metrics.unlabelled)
    assert evaluator.images_seen == 60
    evaluator.reset()
    assert (evaluator.images_seen, evaluator.compute().accuracy) == (0, None)


@pytest.mark.parametrize(
    ("class_index", "output", "message"),
    [
        (
            [0],
            predictions(0, 0),
            r"image 5: 1 labels and predictions for colour, shape, but the label fields are colour, shape",
        ),
        ([0, 0], FieldPredictions({"colour": certain(0, 3)}), "predictions for colour, but"),
        ([0, 7], predictions(0, 0), r"class_index is 7, but must be one of 0\.\.6"),
        ([-2, 0], predictions(0, 0), "class_index is -2"),
        (
            [0, 0],
            FieldPredictions({"colour": certain(0, 3), "shape": certain(0, 3)}),
            "7 finite probabilities are needed",
        ),
    ],
)
def test_invalid_targets_and_outputs(class_index: list[int], output: FieldPredictions, message: str) -> None:
    evaluator = FieldEvaluator([COLOUR, SHAPE])
    with pytest.raises(DataError, match=message):
        evaluator.update([{"image_id": 5, "class_index": torch.tensor(class_index)}], [output])
    with pytest.raises(DataError, match="1 targets but 0 outputs"):
        evaluator.update([{"image_id": 5, "class_index": torch.tensor([0, 0])}], [])
