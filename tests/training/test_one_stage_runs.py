"""Test one-stage detectors with the commands, and the options that a run chooses for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.models import build_model, describe
from detseg.models.create import create_model
from detseg.options import TrainConfig
from detseg.preprocess import Preprocessing
from detseg.runtime.machine import MachineFacts
from detseg.training.anchors import fitted_anchor_sizes
from detseg.training.make_plan import make_plan

SSD = "ssdlite320_mobilenet_v3_large"
RETINANET = "retinanet_mobilenet_v2_fpn_slim"
FCOS = "fcos_mobilenet_v2_fpn_slim"


@pytest.mark.usefixtures("no_images")
@pytest.mark.parametrize("arch", [SSD, *(pytest.param(arch, marks=pytest.mark.slow) for arch in (RETINANET, FCOS))])
def test_train_evaluate_predict_and_resume(
    arch: str, parts: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    run, straight = tmp_path / "run", tmp_path / "straight"
    quick = ["--weights", "none", "--image-size", "96", "--workers", "0", "--device", "cpu", "--augment", "flip"]
    train = ["train", str(parts), "--model", arch, *quick, "--schedule", "constant", "--warmup-steps", "0"]
    train += ["--batch-size", "3"]  # three images, then one
    assert main([*train, "--output", str(run), "--epochs", "1"]) == 0
    predictor = Predictor(run, "cpu")
    assert predictor.preprocessing == describe(arch, predictor.class_map, weights="none", image_size=96).preprocessing
    assert predictor(np.zeros((50, 80, 3), np.uint8)).size_hw == (50, 80)  # type: ignore[union-attr]
    assert main(["evaluate", str(run), "--json", "--device", "cpu", "--workers", "0"]) == 0
    assert (run / "evaluate-val" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()
    assert main(["predict", str(run), str(parts / "val"), "--output", str(tmp_path / "out"), "--no-draw"]) == 0
    assert isinstance(json.loads((tmp_path / "out" / "predictions.json").read_text()), list | dict)

    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert main([*train, "--output", str(straight), "--epochs", "2"]) == 0
    assert rows(run) == rows(straight)
    assert {"val_loss_classifier", "val_loss_box_reg", "bbox_AP"} <= set(rows(run)[0])


def table_of(sides: list[float]) -> AnnotationTable:
    """Return a table of one image of 400 pixels with square boxes of these sides."""
    builder = TableBuilder(ClassMap.from_names(["a"]), ".", source="test")
    builder.add_image("a.jpg", (400, 400))
    for side in sides:
        builder.add_instance([0, 0, side, side], 1)
    return builder.build()


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        (SSD, {}, {"image_size": None, "weights": "coco", "lr": 0.00125}),
        (RETINANET, {}, {"image_size": 480, "weights": "imagenet", "lr": 0.00125, "anchor_sizes": None}),
        (FCOS, {"batch_size": 64}, {"image_size": 480, "lr": 0.01, "anchor_sizes": None}),
        (FCOS, {"weights": "none"}, {"optimizer": "adamw", "lr": 5e-4, "freeze": "none"}),
        ("fasterrcnn_mobilenet_v2_fpn_slim", {}, {"lr": 0.0025, "rois_per_image": 128}),  # control
    ],
)
def test_chosen_options(arch: str, options: dict[str, Any], expected: dict[str, Any]) -> None:
    table = table_of([100.0])
    values = make_plan(TrainConfig(data="x", model=arch, **options), table, table, MachineFacts("cpu")).values()
    assert {name: values[name] for name in expected} == expected
    if not arch.startswith("fasterrcnn"):
        assert values["rois_per_image"] is None


def test_demo_options_that_do_not_apply_are_omitted() -> None:
    table = table_of([100.0])
    plan = make_plan(TrainConfig(model=FCOS, task="detect"), table, table, MachineFacts("cpu"))
    assert (plan.model.rois_per_image, plan.model.image_size) == (None, 240)


def test_rois_per_image_is_an_error() -> None:
    table = table_of([100.0])
    with pytest.raises(DataError, match="one stage"):
        make_plan(TrainConfig(data="x", model=FCOS, rois_per_image=64), table, table, MachineFacts("cpu"))


@pytest.mark.parametrize(
    ("arch", "side", "expected"),
    [
        ("retinanet_mobilenet_v2_fpn", 17, [16, 32, 64, 128, 256]),
        ("retinanet_mobilenet_v2_fpn", 5, [16, 32, 64, 128, 256]),  # two pixels of the finest map, of stride 8
        ("retinanet_mobilenet_v2_fpn", 100, None),
        (FCOS, 5, None),
        (SSD, 5, None),
    ],
)
def test_fitted_anchors(arch: str, side: float, expected: list[int] | None) -> None:
    assert fitted_anchor_sizes(arch, "none", table_of([side]), Preprocessing(400, 800)) == expected


def test_a_trained_head_keeps_its_anchors(tmp_path: Path) -> None:
    arch, small = "retinanet_mobilenet_v2_fpn", table_of([9])
    torch.save(build_model(describe(arch, small.class_map, weights="none")).state_dict(), tmp_path / "mine.pth")
    torch.save({"rpn.head.conv.0.0.weight": torch.zeros(1)}, tmp_path / "rcnn.pth")
    assert fitted_anchor_sizes(arch, str(tmp_path / "mine.pth"), small, Preprocessing(400, 800)) is None
    assert fitted_anchor_sizes(arch, str(tmp_path / "rcnn.pth"), small, Preprocessing(400, 800)) is not None


def test_one_size_per_map_becomes_three_sizes_of_an_octave() -> None:
    created = create_model(RETINANET, ["a"], weights="none", anchor_sizes=[8, 16, 32, 64, 128])
    assert created.model.description.anchor_sizes is not None
    assert created.model.description.anchor_sizes[0] == (8, 10, 12)
    assert [line.split()[0] for line in created.lines[-4:]] == ["stem", "backbone", "neck", "head"]
