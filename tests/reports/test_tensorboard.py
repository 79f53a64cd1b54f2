"""What the TensorBoard sink writes, read back from its event files; runs and the server are in tests/training."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.metrics import CocoEvaluator
from detseg.pr_curve import RECALLS
from detseg.reports.tensorboard import TensorBoardSink, check_installed
from detseg.runtime.reporter import Event, Reporter
from detseg.structures import Prediction

pytest.importorskip("tensorboard")

ROW = {"epoch": 1, "first_epoch": 1, "lr": 0.1, "train_loss": 2.0, "val_loss": 3.0, "bbox_AP": 0.5, "accuracy": None}


def written(folder: Path) -> Any:
    """The event files of a folder, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, round(event.value, 5)) for event in written(folder).Scalars(tag)]


def send_epochs(folder: Path, epochs: list[int], loss: float, **options: Any) -> None:
    sink = TensorBoardSink(folder, **options)
    reporter = Reporter(sink)
    for epoch in epochs:
        reporter.epoch(ROW | {"epoch": epoch, "train_loss": loss}, 9, False, "")
    reporter.metrics("val", {"bbox": {"AP": loss, "max_dets": 100}, "images": 4}, "")
    sink.close()


def test_scalars_of_an_epoch(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    row = ROW | {"gradient_norm_box_head": 4.0, "lr_heads": 0.2, "train_loss_mask": float("nan"), "seconds": 5.0}
    Reporter(sink).epoch(row | {"train_accuracy": 0.25, "accuracy": 0.75, "images_per_second": 7.0}, 9, True, "")
    sink.close()
    tags = written(tmp_path).Tags()["scalars"]
    assert set(tags) == {
        "loss/train", "loss/val", "bbox/AP", "accuracy/train", "accuracy/val", "gradient_norm/box_head", "lr/heads",
        "speed/seconds", "speed/images_per_second",
    }  # fmt: skip
    assert scalars(tmp_path, "loss/val") == [(1, 3.0)]
    assert scalars(tmp_path, "accuracy/train") == [(1, 0.25)]


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    """It was stopped in epoch 4, of which the checkpoint was not written: the epoch is trained again."""
    for folder, first in ((tmp_path / "a", 4), (tmp_path / "control", 1000)):
        send_epochs(folder, [1, 2, 3, 4], 1.0)
        send_epochs(folder, [4, 5], 2.0, first_epoch=first)
    assert scalars(tmp_path / "a", "loss/train") == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]
    assert [step for step, _ in scalars(tmp_path / "control", "loss/train")] == [1, 2, 3, 4, 4, 5], "control"


def test_options_with_results_are_those_of_the_last_time(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    def options() -> dict[str, Any]:
        content = written(tmp_path).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}

    first = {"epochs": 4, "model": "x", "minutes": None, "tensorboard": True, "output": "runs/a", "sizes": [1, 2]}
    send_epochs(tmp_path, [1], 0.25, options=first)
    assert options() == {"epochs": 4, "model": "x", "minutes": "none", "sizes": "[1, 2]"}
    send_epochs(tmp_path, [2], 0.75, first_epoch=2, options=first | {"epochs": 9})
    assert options()["epochs"] == 9
    assert scalars(tmp_path, "best/val_bbox_AP") == [(0, 0.75)]
    assert "best/val_bbox_max_dets" not in written(tmp_path).Tags()["scalars"]


def evaluator() -> CocoEvaluator:
    """Two classes with names that differ only in a character that tags do not have; some objects are missed."""
    rng = np.random.default_rng(0)
    builder = TableBuilder(ClassMap.from_names(["a b", "a/b"]), "", source="set")
    predictions: dict[int, Prediction] = {}
    for image_id in range(1, 13):
        builder.add_image(f"{image_id}.png", (100, 100), image_id=image_id)
        boxes, labels = [], []
        for _ in range(3):
            low = rng.uniform(0, 60, 2)
            label = int(rng.integers(1, 3))
            builder.add_instance([*low.tolist(), 30.0, 30.0], label)
            if rng.random() < 0.8:
                boxes.append([*(low + rng.uniform(0, 8, 2)).tolist(), *(low + 30).tolist()])
                labels.append(label if rng.random() < 0.8 else 3 - label)
        scores = np.sort(rng.uniform(0.1, 1, len(boxes)))[::-1].astype(np.float32)
        predictions[image_id] = Prediction(
            (100, 100), np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), scores
        )
    result = CocoEvaluator(builder.build())
    for image_id, prediction in predictions.items():
        result.update([{"image_id": image_id}], [prediction])
    return result


def test_pr_curves_are_those_of_the_evaluator(tmp_path: Path) -> None:
    coco = evaluator()
    metrics = coco.compute()
    precision = coco._evaluation("bbox").eval["precision"]
    sink = TensorBoardSink(tmp_path)
    Reporter(sink).detail("evaluation", epoch=3, metrics=metrics.to_dict(), pr_curves=coco.pr_curves)
    sink.close()
    events = written(tmp_path)
    groups = ("pr_curves/box, IoU 0.50", "pr_curves/box, IoU 0.75")
    tags = [f"{group}/{name}" for group in groups for name in ("a_b", "a_b_2")]
    assert [tag for tag in events.Tags()["tensors"] if tag.startswith("pr_curves")] == tags
    for number, tag in enumerate(tags):
        (event,) = events.Tensors(tag)
        assert event.step == 3
        data = np.array(event.tensor_proto.float_val).reshape(6, 101)
        hits, alarms, _, missed, shown, recall = data
        expected = precision[(0, 5)[number // 2], :, number % 2, 0, -1]
        np.testing.assert_allclose(recall[::-1], RECALLS, atol=1e-6)
        np.testing.assert_allclose(shown[::-1], expected, atol=1e-6)
        assert not np.allclose(shown, expected, atol=1e-6), "control: the other direction"
        reached = shown > 0
        np.testing.assert_allclose(hits[reached] / (hits + alarms)[reached], shown[reached], atol=1e-6)
        assert ((hits + missed) == coco.pr_curves[number].positives).all()
    assert scalars(tmp_path, "bbox_AP50_per_class/a_b") == [
        (3, round(metrics.per_class["bbox"]["a b"]["AP50"] or 0, 5))
    ]
    curves = {curve.class_name: curve.ap for curve in coco.pr_curves if curve.iou == 0.5}
    assert curves == pytest.approx({name: scores["AP50"] for name, scores in metrics.per_class["bbox"].items()})


def test_features_for_the_projector(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    vectors, thumbnails = np.arange(10, dtype=np.float32).reshape(5, 2) / 3, np.zeros((5, 48, 48, 3), np.uint8)
    thumbnails[3] = (200, 100, 50)
    Reporter(sink).detail(
        "features", epoch=1, vectors=vectors, class_names=["a", "b\tc", "猫", "a", "a"], thumbnails=thumbnails
    )
    sink.close()
    rows = np.loadtxt(tmp_path / "projector" / "vectors.tsv", delimiter="\t")
    np.testing.assert_allclose(rows, vectors, rtol=1e-5)
    assert (tmp_path / "projector" / "classes.tsv").read_text(encoding="utf-8") == "a\nb c\n猫\na\na\n"
    sprite = cv2.imread(str(tmp_path / "projector" / "thumbnails.png"))
    assert sprite.shape == (144, 144, 3)
    assert (sprite[48:96, :48] == (50, 100, 200)).all(), "the fourth: first in the second row"


def test_weights_and_drawings(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    Reporter(sink).detail("weights", epoch=2, values={"conv.weight": np.arange(9.0)})
    image = np.full((4, 6, 3), (10, 20, 250), np.uint8)
    Reporter(sink).detail("drawing", epoch=2, name="validation", image=image)
    sink.close()
    events = written(tmp_path)
    assert events.Histograms("weights/conv.weight")[0].histogram_value.num == 9
    (drawn,) = events.Images("validation")
    pixels = cv2.imdecode(np.frombuffer(drawn.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert (pixels[..., ::-1] == image).all()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    check_installed()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'detseg\[tensorboard\]'"):
        TensorBoardSink(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_other_events_are_ignored(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink(Event("line", "text"))
    sink.close()
    assert not list(tmp_path.glob("*.results")), "no results, no options"
