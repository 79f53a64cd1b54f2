"""Test whole runs on every supported kind of data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg import read
from detseg.checkpoints import load
from detseg.cli import main
from detseg.masks import rasterize


def model_of(run: Path) -> Any:
    return load(run).description


def contents(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_penn_fudan_folder(shared_data: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read(shared_data / "coco_open", classes=["person"])
    data = tmp_path / "people"
    for name in ("PNGImages", "PedMasks"):
        (data / name).mkdir(parents=True)
    counts: list[int] = []
    for record in table:
        if len(record) == 0 or record.iscrowd.any() or len(counts) == 5:
            continue
        mask = np.zeros(record.size_hw, np.uint8)
        for value, segmentation in enumerate(record.segmentations, start=1):
            assert segmentation is not None
            mask[rasterize(segmentation, record.size_hw, record.size_hw) > 0] = value
        cv2.imwrite(str(data / "PNGImages" / f"{record.path.stem}.png"), cv2.imread(str(record.path)))
        cv2.imwrite(str(data / "PedMasks" / f"{record.path.stem}_mask.png"), mask)
        counts.append(len(np.unique(mask)) - 1)
    assert max(counts) > 1
    capsys.readouterr()
    run = train(data, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "task segment" in printed
    assert "instance" in printed
    assert f"{sum(counts)} instances" in printed
    description = model_of(run)
    assert (description.task, len(description.class_map)) == ("segment", 1)
    assert contents(run / "metrics.json")["segm"]["AP"] is not None


def test_oxford_pets_by_class_values(shared_data: Path, train: Any, tmp_path: Path) -> None:
    options = ("--mask-values", "class", "--classes", "cat,dog", "--subset", "4")
    run = train(shared_data / "oxford_pet_26", tmp_path / "run", *options)
    description = model_of(run)
    assert (description.task, description.class_map.names) == ("segment", ("cat", "dog"))
    metrics = contents(run / "metrics.json")
    assert set(metrics["segm"]["per_class"]) == {"cat", "dog"}
    assert all(scores["objects"] > 0 for scores in metrics["segm"]["per_class"].values())  # a stratified split


@pytest.mark.parametrize("values", [(), pytest.param(("--mask-values", "binary"), marks=pytest.mark.slow)])
def test_shapes_by_binary_masks(
    values: tuple[str, ...], shared_data: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run = train(shared_data / "shapes", tmp_path / "run", "--val", "0.5", *values)
    assert "2 images, 5 instances, 2 classes" in capsys.readouterr().out
    assert model_of(run).class_map.names == ("circle", "square")
    assert len(contents(run / "split.json")["splits"]["train"]) == 1


def test_flowers_by_class_folders(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = shared_data / "weights/mobilenet_v2_fp16.pth"
    capsys.readouterr()
    options = ["--model", "mobilenet_v2", "--weights", str(weights), "--image-size", "64", "--epochs", "1"]
    machine = ["--workers", "0", "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main(["train", str(shared_data / "flowers"), *options, *machine]) == 0
    printed = capsys.readouterr().out
    assert "task classify" in printed
    assert "60 train, 20 val" in printed
    run = tmp_path / "run"
    metrics = contents(run / "metrics.json")
    assert np.array(metrics["confusion"]).sum() == metrics["images"] == 20
    assert set(metrics["per_class"]) == {"daisy", "dandelion", "roses", "sunflowers", "tulips"}
    for name in ("confusion.png", "predictions.jpg"):
        assert cv2.imread(str(run / name)) is not None
    assert main(["evaluate", str(run), "--device", "cpu", "--workers", "0"]) == 0
    assert contents(run / "evaluate-val/metrics.json") == metrics
    image = sorted((shared_data / "flowers/val/roses").iterdir())[0]
    assert main(["predict", str(run), str(image), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    (result,) = contents(tmp_path / "out/predictions.json")
    assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert result["score"] == max(result["probabilities"])


@pytest.mark.parametrize(
    ("model", "weights"),
    [
        ("fasterrcnn_mobilenet_v3_large_fpn_slim", None),
        pytest.param("fasterrcnn_mobilenet_v2_fpn", "weights/mobilenet_v2_fp16.pth", marks=pytest.mark.slow),
    ],
)
def test_boxes_only(model: str, weights: str | None, shared_data: Path, train: Any, tmp_path: Path) -> None:
    options = ["--task", "detect", "--model", model, "--classes", "person", "--subset", "4"]
    if weights:
        options += ["--weights", str(shared_data / weights), "--trainable-layers", "1"]
    run = train(shared_data / "coco_open", tmp_path / "run", *options)
    assert model_of(run).task == "detect"
    metrics = contents(run / "metrics.json")
    assert "segm" not in metrics
    results = contents(run / "predictions.json")
    assert results
    assert all("segmentation" not in result for result in results)
