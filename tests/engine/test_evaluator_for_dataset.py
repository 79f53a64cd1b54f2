"""The evaluator of a dataset follows from what the dataset states, not from its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read, subset
from detseg.datasets import Dataset, LabelledImages
from detseg.engine.evaluator import evaluator_for_dataset
from detseg.metrics import ClassificationEvaluator, CocoEvaluator
from detseg.preprocess import Preprocessing
from detseg.structures import RawPrediction

PREPROCESSING = Preprocessing(96, 0)


@pytest.fixture(scope="module")
def table() -> AnnotationTable:
    return subset(read(Path(__file__).parents[2] / "data" / "demo"), 4, 0)


class Unstated:
    """A dataset from elsewhere with the samples of a :class:`Dataset`; counts how often they are read."""

    def __init__(self, table: AnnotationTable) -> None:
        self.samples = Dataset(table, PREPROCESSING, task="segment")
        self.reads = 0

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return self.samples[index]


class Stated(Unstated):
    """The same, which also states its ground truth."""

    task = "detect"
    preprocessing = PREPROCESSING

    def ground_truth_table(self) -> AnnotationTable:
        return self.samples.table


def metrics_of_perfect_predictions(evaluator: Any, table: AnnotationTable) -> dict[str, Any]:
    for _, target in Dataset(table, PREPROCESSING, task="segment"):  # type: ignore[attr-defined]
        scores = np.linspace(1, 0.5, len(target["labels"]))
        evaluator.update([target], [RawPrediction(target["boxes"].numpy(), target["labels"].numpy(), scores)])
    result: dict[str, Any] = evaluator.compute().scalars()
    return result


def test_a_dataset_that_states_its_ground_truth_is_not_read(table: AnnotationTable) -> None:
    dataset = Stated(table)
    evaluator = evaluator_for_dataset(dataset)
    assert dataset.reads == 0
    reference = evaluator_for_dataset(Dataset(table, PREPROCESSING, task="detect"))
    scalars = metrics_of_perfect_predictions(evaluator, table)
    assert scalars == metrics_of_perfect_predictions(reference, table)
    assert "segm_AP" not in scalars  # its task is "detect"


def test_control_any_other_dataset_is_read_sample_by_sample(table: AnnotationTable) -> None:
    dataset = Unstated(table)
    evaluator = evaluator_for_dataset(dataset)
    assert dataset.reads == len(table)
    assert isinstance(evaluator, CocoEvaluator)
    assert "segm" in evaluator.iou_types


def test_classification_needs_no_image() -> None:
    evaluator = evaluator_for_dataset(LabelledImages([None] * 3, PREPROCESSING, classes=["a", "b"]))
    assert isinstance(evaluator, ClassificationEvaluator)
    assert evaluator.class_map.names == ("a", "b")
