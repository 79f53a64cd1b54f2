"""Test the choice of the task from the annotations, the model and the options."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.annotations.obstacles import obstacles
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.runtime.machine import MachineFacts
from detseg.training.make_plan import make_plan
from detseg.training.task_choice import pick_task

SQUARE = [np.array([[2.0, 2], [12, 2], [12, 12], [2, 12]])]


def table(instances: list[tuple[bool, bool]], *, classes: int = 2, class_index: int | None = None) -> AnnotationTable:
    """Return a table of one image; one instance for each (has a mask, is a crowd)."""
    builder = TableBuilder(ClassMap.from_names([f"c{i}" for i in range(classes)]), Path("/data"), source="set")
    builder.add_image("a.jpg", (40, 60), class_index=class_index)
    for number, (masked, crowd) in enumerate(instances, 1):
        segmentation = SQUARE if masked else None
        builder.add_instance([2, 2, 10, 10], 1, segmentation=segmentation, iscrowd=crowd, annotation_id=number)
    return builder.build()


@pytest.mark.parametrize(
    ("instances", "task", "expected"),
    [
        ([(True, False)], "segment", "the most"),
        ([(False, False)], "detect", "the most"),
        ([(True, False), (False, False)], "detect", "only 1 of 2 instances have a mask; the first without is a.jpg"),
        ([(True, False), (False, True)], "segment", "the most"),  # a crowd is not trained on and needs no mask
    ],
)  # fmt: skip
def test_the_most_demanding_possible_task(instances: list[tuple[bool, bool]], task: str, expected: str) -> None:
    picked, reason = pick_task(None, None, table(instances))
    assert picked == task
    assert expected in reason


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (table([]), "there are no boxes"),
        (table([(True, True)] * 3), "all 3 instances are crowds or ignored"),
        (table([], classes=1, class_index=0), "only one class"),
    ],
)
def test_no_possible_task(data: AnnotationTable, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        pick_task(None, None, data)


@pytest.mark.parametrize(
    ("options", "task"),
    [
        ({"model": "fasterrcnn_resnet50_fpn"}, "detect"),
        ({"model": "maskrcnn_resnet50_fpn"}, "segment"),
        ({"task": "detect"}, "detect"),
    ],
)
def test_the_model_or_the_option_determines_the_task(options: dict[str, str], task: str) -> None:
    assert pick_task(options.get("task"), options.get("model"), table([(True, False)]))[0] == task


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model": "maskrcnn_resnet50_fpn"}, "there are no masks; possible: detect"),
        ({"task": "segment"}, "there are no masks"),
        ({"model": "resnet18"}, "there are no class folders"),
        ({"model": "resnet18", "task": "detect"}, "--model resnet18 is for --task classify"),
        ({"model": "resnet19"}, "resnet18"),
    ],
)
def test_impossible_tasks_are_errors(options: dict[str, str], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        pick_task(options.get("task"), options.get("model"), table([(False, False)]))


def test_classification_needs_two_classes() -> None:
    assert obstacles(table([], class_index=1))["classify"] == ""
    assert pick_task(None, None, table([], class_index=1))[0] == "classify"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"workers": -1}, "--workers -1"),
        ({"eval_epochs": 0}, "--eval-epochs 0: it must be at least 1"),
        ({"image_size": 4}, "--image-size 4: it must be at least 32"),
        ({"mask_rois_per_image": 0}, "--mask-rois-per-image 0: it must be at least 1"),
        ({"head_lr_mult": 0.0}, "--head-lr-mult 0: it must be a number above 0"),
        ({"beta2": 1.0}, "--beta2 1: it must be a number above 0 and below 1, such as 0.999"),
        ({"beta2": 0.9, "optimizer": "sgd"}, "--beta2 0.9 is an option of adamw"),
        ({"lr": 0.0}, "--lr 0"),
        ({"lr": float("nan")}, "--lr nan"),
        ({"seed": -1}, "--seed -1"),
        ({"freeze": "backbone", "trainable_layers": 2}, "give one of them"),
    ],
)
def test_numbers_out_of_range(options: dict[str, float], expected: str) -> None:
    data = table([(True, False)])
    with pytest.raises(DataError, match=expected):
        make_plan(TrainConfig(data="x", **options), data, data, MachineFacts("cpu"))  # type: ignore[arg-type]


def test_every_choice_has_a_reason_and_options_of_the_user_stay() -> None:
    crowded = table([(True, False)] * 90)
    plan = make_plan(TrainConfig(data="x", lr=0.5), crowded, crowded, MachineFacts("cpu"))
    assert (plan.optimizer.lr, plan.training.batch_size, plan.run.workers) == (0.5, 1, 0)
    assert (plan.model.model, plan.model.detections_per_image) == ("maskrcnn_mobilenet_v3_large_fpn", 135)
    assert (plan.model.weights, plan.freezing.freeze) == ("coco", "backbone")
    lines = plan.lines()
    assert all(line.endswith(")") for line in lines)
    assert not any(line.strip().startswith("lr ") for line in lines)
    cuda = make_plan(TrainConfig(data="x"), crowded, crowded, MachineFacts("cuda"))
    assert (cuda.model.model, cuda.freezing.freeze) == ("maskrcnn_resnet50_fpn", "stem")
    assert cuda.model.image_size is None, "that of the weights"
    folders = table([], class_index=1)
    model = make_plan(TrainConfig(data="x"), folders, folders, MachineFacts("cpu")).model
    assert (model.model, model.weights, model.rois_per_image) == ("resnet18", "imagenet", None)
