"""Test training, evaluation, prediction and inspection from the command line on real COCO images."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import cv2
import pytest
from pycocotools import mask

from detseg.checkpoints import load, load_checkpoint
from detseg.cli import main
from detseg.metrics import evaluate_files
from detseg.options import TrainConfig
from detseg.options.text import flat_options


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "coco_open"


@pytest.fixture(scope="module")
def run(data: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with two classes, so that even an untrained model has matches; 8 training images, all 13 for validation."""
    options = ("--classes", "person,dog", "--subset", "8", "--lr", "1e-3", "--detections-per-image", "40")
    return train(data, tmp_path_factory.mktemp("coco") / "run", *options)


def contents(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_run_folder_contains_all_documented_files(run: Path) -> None:
    assert {path.name for path in run.iterdir()} >= {
        *("best.safetensors", "last.safetensors", "config.toml", "split.json", "metrics.jsonl", "metrics.json"),
        *("predictions.json", "predictions.jpg"),
    }
    images = [path for path in run.iterdir() if path.suffix in (".jpg", ".png")]
    for drawing in images:
        image = cv2.imread(str(drawing))
        assert image is not None
        assert image.std() > 1, f"{drawing} is blank"
    assert not [path for path in run.iterdir() if path.suffix == ".tmp"]


def test_the_saved_config_is_the_resolved_one(run: Path, data: Path) -> None:
    config = TrainConfig(**flat_options(tomllib.loads((run / "config.toml").read_text())))
    assert (config.data, config.output, config.classes) == (str(data), str(run), "person,dog")
    assert (config.task, config.optimizer, config.augment, config.freeze) == ("segment", "adamw", "light", "none")
    assert (config.subset, config.epochs, config.lr, config.seed) == (8, 1, 1e-3, 0)


def test_the_source_split_is_used_and_the_subset_saved(run: Path, data: Path) -> None:
    parts = contents(run / "split.json")["splits"]
    assert {name: len(images) for name, images in parts.items()} == {"train": 8, "val": 13}
    val_ids = {image["id"] for image in contents(data / "instances_val.json")["images"]}
    assert {image["image_id"] for image in parts["val"]} == val_ids


def test_one_row_per_epoch_with_losses_and_both_kinds_of_ap(run: Path, rows: Any) -> None:
    (row,) = rows(run)
    assert (row["epoch"], row["first_epoch"]) == (1, 1)
    for name in ("train_loss", "train_loss_mask", "val_loss", "val_loss_classifier", "bbox_AP", "segm_AP50", "lr"):
        assert isinstance(row[name], float), name
    terms = sum(value for name, value in row.items() if name.startswith("val_loss_"))
    assert row["val_loss"] == pytest.approx(terms, rel=1e-6)
    metrics = contents(run / "metrics.json")
    assert {kind: row[f"{kind}_AP"] for kind in ("bbox", "segm")} == {
        kind: metrics[kind]["AP"] for kind in ("bbox", "segm")
    }


def test_checkpoints_contain_the_position_and_the_model(run: Path) -> None:
    best, last = (load_checkpoint(run / f"{name}.safetensors") for name in ("best", "last"))
    assert (best.position.epoch, best.position.step, best.position.best_epoch) == (1, 4, 0)
    assert last.optimizer
    assert not best.optimizer
    assert load(run).description.class_map.names == ("person", "dog")  # type: ignore[union-attr]


def test_predictions_of_the_model_as_ground_truth(run: Path, data: Path, tmp_path: Path) -> None:
    """Half of the predictions become the ground truth: evaluating the run and the files has equal results."""
    images = [i for i in contents(data / "instances_val.json")["images"] if i["id"] in (6818, 41888, 226111)]
    assert len(images) == 3
    ids = {image["id"] for image in images}
    predictions = [r for r in contents(run / "predictions.json") if r["image_id"] in ids]
    objects = [r for r in predictions if mask.area(r["segmentation"]) > 0 and min(r["bbox"][2:]) > 1][::2]
    annotations = [
        {
            **{k: v for k, v in r.items() if k != "score"},
            "id": n,
            "iscrowd": 0,
            "area": int(mask.area(r["segmentation"])),
        }
        for n, r in enumerate(objects, start=1)
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    ground_truth = tmp_path / "ground_truth.json"
    ground_truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    out = tmp_path / "out"
    options = ["--images", str(data / "val"), "--split", "all", "--device", "cpu", "--workers", "0"]
    assert main(["evaluate", str(run), str(ground_truth), *options, "--max-dets", "100", "--output", str(out)]) == 0
    metrics, results = contents(out / "metrics.json"), contents(out / "predictions.json")
    for kind in ("bbox", "segm"):
        # In files with boxes, pycocotools uses the size range of the box for a mask
        file_results = [{k: v for k, v in r.items() if k != "bbox" or kind == "bbox"} for r in results]
        (tmp_path / "results.json").write_text(json.dumps(file_results))
        stats = evaluate_files(ground_truth, tmp_path / "results.json", iou_type=kind).stats[kind]
        assert stats == pytest.approx({name: metrics[kind][name] for name in stats}, abs=1e-9)
        assert 0.2 < metrics[kind]["AP"] < 0.95
        for result in file_results:  # control: the same with other labels
            result["category_id"] = 18 if result["category_id"] == 1 else 1
        (tmp_path / "results.json").write_text(json.dumps(file_results))
        assert (
            evaluate_files(ground_truth, tmp_path / "results.json", iou_type=kind).stats[kind]["AP"]
            < 0.8 * metrics[kind]["AP"]
        )


def test_evaluate_returns_the_metrics_of_the_run(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--device", "cpu", "--workers", "0"]
    capsys.readouterr()
    # batches of two images as in the run, so that the sums of floats are equal
    options = ["--split", "val", "--batch-size", "2", "--output", str(tmp_path), *common]
    assert main(["evaluate", str(run), str(data), *options]) == 0
    printed = capsys.readouterr().out
    assert "val split: box AP 0." in printed
    assert "Average Precision" not in printed, "on request only"
    for name in ("metrics.json", "predictions.json"):
        assert contents(tmp_path / name) == contents(run / name)
    # control: other images of the same data have other results
    assert main(["evaluate", str(run), "--split", "train", "--json", *common]) == 0
    trained = contents(run / "evaluate-train/metrics.json")
    assert json.loads(capsys.readouterr().out) == trained  # JSON is all that is printed
    assert trained["images"] == 8
    assert contents(run / "evaluate-train/predictions.json") != contents(run / "predictions.json")


def test_errors_of_evaluate(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--split", "test"]) == 1
    assert "has no test split" in capsys.readouterr().err
    assert main(["evaluate", str(run), str(data), "--classes", "person,car"]) == 1
    assert "car" in capsys.readouterr().err
    assert main(["evaluate"]) == 1
    assert "run folder" in capsys.readouterr().err


def test_predict_continues_after_a_corrupt_image(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "my images"
    (folder / "größer").mkdir(parents=True)
    sources = sorted((data / "val").glob("*.jpg"))[:2]
    shutil.copy(sources[0], folder / "first one.jpg")
    shutil.copy(sources[1], folder / "größer" / "ünd.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    (folder / "notes.txt").write_text("not an image")
    out = tmp_path / "out"
    options = ["--output", str(out), "--device", "cpu", "--min-score", "0.1"]
    assert main(["predict", str(run), str(folder), *options]) == 1
    assert "broken.jpg" in capsys.readouterr().out
    results, images = contents(out / "predictions.json"), contents(out / "images.json")
    assert [image["file_name"] for image in images["images"]] == ["broken.jpg", "first one.jpg", "größer/ünd.jpg"]
    assert [line.split(":")[0] for line in images["failed"]] == ["broken.jpg"]
    assert {result["file_name"] for result in results} == {"first one.jpg", "größer/ünd.jpg"}
    assert {result["category_id"] for result in results} <= {1, 18}
    for result in results:
        assert {"image_id", "category_id", "bbox", "score", "segmentation"} <= set(result)
        height, width = result["segmentation"]["size"]
        x, y, w, h = result["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + w <= width + 1e-3
        assert y + h <= height + 1e-3
    for name in ("first one.jpg.jpg", "größer/ünd.jpg.jpg"):
        drawn = cv2.imread(str(out / "images" / name))
        assert drawn is not None

    (folder / "broken.jpg").unlink()  # control: without it the exit code is 0
    assert main(["predict", str(run), str(folder), *options, "--no-draw"]) == 0
    assert main(["predict", str(run), str(tmp_path / "nowhere"), *options]) == 1


def test_predict_and_evaluate_return_the_same_predictions(run: Path, data: Path, tmp_path: Path) -> None:
    first = sorted((data / "val").glob("*.jpg"))[0]
    options = ["--output", str(tmp_path), "--device", "cpu", "--no-draw"]
    assert main(["predict", str(run), str(first), *options]) == 0
    predicted = contents(tmp_path / "predictions.json")
    evaluated = [r for r in contents(run / "predictions.json") if r["image_id"] == int(first.stem)]
    assert len(predicted) == len(evaluated) > 0
    for result, reference in zip(predicted, evaluated, strict=True):
        assert result["category_id"] == reference["category_id"]
        assert result["bbox"] == pytest.approx(reference["bbox"], abs=1e-2)
        assert result["score"] == pytest.approx(reference["score"], abs=1e-4)


def test_inspect(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["inspect", str(data), "--output", str(tmp_path), "--records", "4"]) == 0
    printed = capsys.readouterr().out
    assert "COCO" in printed
    assert "person" in printed
    summary = contents(tmp_path / "summary.json")
    assert (summary["images"], summary["instances"], summary["negatives"]) == (46, 339, 3)
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None
    assert main(["inspect", str(data), "--output", str(tmp_path), "--records", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == summary


@pytest.mark.slow
def test_all_classes_on_all_images(data: Path, train: Any, tmp_path: Path, rows: Any) -> None:
    run = train(data, tmp_path / "run")
    assert rows(run)[0]["train_loss"] < 10
    assert main(["evaluate", str(run), "--device", "cpu", "--workers", "0"]) == 0
    assert contents(run / "evaluate-val/metrics.json") == contents(run / "metrics.json")
    assert len(contents(run / "metrics.json")["bbox"]["per_class"]) == 80
