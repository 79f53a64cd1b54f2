"""``repr`` of what a notebook shows is one short line with the useful facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg import Dataset, Predictor, TrainConfig, create_model, load, read, split
from detseg.annotations.builder import TableBuilder
from detseg.checkpoints import load_checkpoint, save_checkpoint
from detseg.classes import ClassMap, LabelField
from detseg.datasets import LabelledImages, preset
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.engine.train import EpochStats
from detseg.metrics import ClassificationMetrics, CocoEvaluator, FieldMetrics, GroundTruth
from detseg.options.plan import Plan
from detseg.short_text import counted, listed
from detseg.structures import ClassPrediction, FieldPredictions, Prediction, RawPrediction
from detseg.training.fit import Run
from detseg.training.training_metrics import TrainingMetrics

MOST = 320
"""Characters: four lines of a terminal."""


def short(value: Any) -> str:
    text = repr(value)
    assert len(text) <= MOST, text
    assert "\n" not in text
    return text


def test_table_record_and_dataset(parts: Path) -> None:
    table = read(parts)
    count = int(table.instances_per_image().sum())
    assert short(table).startswith(
        f"AnnotationTable(6 images, {count} instances with masks; 3 classes: {', '.join(table.class_map.names)}; "
        "splits: train 4, val 2; source: "
    )
    assert short(split(table, val=0.5, seed=0)["val"]).startswith("AnnotationTable(2 images, ")
    assert short(table.subset([])).startswith("AnnotationTable(0 images, 0 instances; 3 classes")
    record = table[0]
    assert short(record).startswith(f"Record({record.name!r}, image_id {record.image_id}, ")
    assert f"{len(record)} instances" in repr(record)
    model = create_model("maskrcnn_mobilenet_v3_large_fpn_slim", table.class_map, weights="none")
    dataset = Dataset(table, model.model.preprocessing, task="segment", augment=preset("light", "segment"))
    assert short(dataset).startswith("Dataset(6 images, segment, augmented; 3 classes: ")
    assert "weights: none; " in short(model)
    assert "million parameters trainable" in repr(model)
    short(model.report)
    short(GroundTruth.from_table(table))


def test_table_of_images_with_classes() -> None:
    builder = TableBuilder(ClassMap(("ant", "bee")), Path(), source="")
    for index in (0, 1, -1):
        builder.add_image(f"{index}.jpg", (4, 4), class_index=index)
    assert short(builder.build()) == "AnnotationTable(3 images, 2 of them with a class; 2 classes: ant, bee)"


def test_long_class_lists_are_cut() -> None:
    names = tuple(f"class {i} {'x' * (i % 90)}" for i in range(300))
    assert short(ClassMap(names)).startswith("ClassMap(300 classes: class 0 , class 1 x, ")
    assert " more" in repr(ClassMap(names))
    assert short(ClassMap(("cat", "dog"), (17, 18))) == "ClassMap(2 classes: cat, dog; category ids 17, 18)"
    assert short(ClassMap(("cat",))) == "ClassMap(1 class: cat)"
    short(Dataset(TableBuilder(ClassMap(names), Path(), source="x" * 900).build(), load_preprocessing(), task="detect"))


def load_preprocessing() -> Any:
    from detseg.preprocess import Preprocessing

    return Preprocessing(min_size=64)


def test_model_files_and_predictor(tmp_path: Path) -> None:
    model = create_model("fasterrcnn_mobilenet_v3_large_fpn_slim", ["ant", "bee"], weights="none").model
    save_checkpoint(tmp_path / "m.safetensors", model)
    checkpoint = load_checkpoint(tmp_path / "m.safetensors")
    assert "fasterrcnn_mobilenet_v3_large_fpn_slim" in repr(checkpoint)
    assert len(repr(checkpoint)) < MOST + len(str(tmp_path))
    predictor = Predictor(load(tmp_path / "m.safetensors"), "cpu")
    assert short(predictor) == (
        "Predictor(fasterrcnn_mobilenet_v3_large_fpn_slim, detect; 2 classes: ant, bee; device cpu)"
    )


def test_predictions() -> None:
    boxes, labels, scores = np.zeros((2, 4), np.float32), np.ones(2, np.int64), np.array([0.9, 0.25], np.float32)
    prediction = Prediction((480, 640), boxes, labels, scores, rles=[{}, {}])
    assert short(prediction) == (
        "Prediction(2 detections with masks, scores 0.900 to 0.250; image of 640 x 480 pixels)"
    )
    assert short(prediction.above(0.95)) == "Prediction(0 detections with masks; image of 640 x 480 pixels)"
    assert short(RawPrediction(boxes, labels, scores)) == "RawPrediction(2 detections, scores 0.900 to 0.250)"
    best = ClassPrediction(np.array([0.25, 0.75], np.float32))
    assert short(best) == "ClassPrediction(class_index 1, probability 0.750 of 2 classes)"
    assert "colour 1 (0.750)" in short(FieldPredictions({"colour": best}))
    short(FieldPredictions({f"field {i}": best for i in range(60)}))


def test_metrics_and_run() -> None:
    builder = TableBuilder(ClassMap(("ant", "bee")), Path(), source="test")
    builder.add_image("a.jpg", (50, 50))
    builder.add_instance(np.array([5.0, 5, 20, 20]), 1, area=400.0)
    evaluator = CocoEvaluator(builder.build())
    assert short(evaluator.compute()) == "CocoMetrics(box AP 0, AP50 0; 1 image, 1 object, 2 classes)"
    none = CocoEvaluator(builder.build().subset([])).compute()
    assert short(none) == "CocoMetrics(box AP undefined; 0 images, 0 objects, 2 classes)"
    accuracy = ClassificationMetrics(("ant", "bee"), np.array([[3, 1], [0, 4]]))
    assert short(accuracy) == ("ClassificationMetrics(accuracy 0.875, balanced_accuracy 0.875; 8 images, 2 classes)")
    assert short(ClassificationMetrics(("ant",), np.zeros((1, 1), np.int64)))
    fields = FieldMetrics({f"field {i}": accuracy for i in range(90)}, {})
    assert short(fields).startswith("FieldMetrics(accuracy 0.875, field 0 0.875")
    assert short(TrainingMetrics(3, {"train_loss": 1 / 3})) == "TrainingMetrics(epoch 3: train_loss 0.3333)"
    losses = {f"loss_{i}": 1 / 3 for i in range(9)}
    assert short(EpochStats({"loss": 0.5}, 1, 2, 3.25)) == "EpochStats(loss 0.5; 1 step, 2 images, 3.2 s)"
    short(EpochStats(losses, 1, 2, 3.25))
    plan = Plan.of(TrainConfig(model="fasterrcnn_resnet50_fpn", task="detect"), {}, {})
    run = Run(Path("runs/a"), plan, evaluator.compute(), torch.nn.Linear(2, 2))
    assert short(run).startswith("Run('runs/a', fasterrcnn_resnet50_fpn, detect; CocoMetrics(box AP 0, ")


def test_other_data_sets() -> None:
    from detseg.preprocess import Preprocessing

    images = LabelledImages([(np.zeros((4, 4, 3), np.uint8), 0)], Preprocessing(min_size=4), classes=["a", "b"])
    assert short(images) == "LabelledImages(1 image of list; 2 classes: a, b)"
    assert short(RenderedScenes(3, (32, 48))).startswith("RenderedScenes(3 scenes per epoch, 48 x 32 pixels; ")
    assert short(LabelField("colour", ClassMap(("red",)))).startswith("LabelField(name='colour', ")


@pytest.mark.parametrize(
    ("names", "width", "text"),
    [
        ([], 20, ""),
        (["a"], 20, "a"),
        (["a", "b", "c"], 20, "a, b, c"),
        (["aaaa", "bbbb", "cccc", "dddd"], 10, "aaaa, bbbb and 2 more"),
        (["x" * 30, "b"], 20, "xxxxxxx..., b"),
    ],
)
def test_lists(names: list[str], width: int, text: str) -> None:
    assert listed(names, width) == text


def test_counts() -> None:
    assert [counted(n, "class", "classes") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert counted(2, "image") == "2 images"
