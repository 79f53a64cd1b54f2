"""Test training with a timm backbone from the command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.cli import main
from detseg.errors import DataError
from detseg.models.build import architecture_of
from detseg.models.create import with_backbone
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.options.text import flat_options
from detseg.training.make_plan import default_output

pytest.importorskip("timm")
pytestmark = pytest.mark.usefixtures("no_images")


@pytest.mark.slow
def test_detect(train: Any, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(
        parts, tmp_path / "run", "--model", "fasterrcnn", "--backbone", "timm:test_convnext", "--freeze", "none"
    )
    assert flat_options(tomllib.loads((run / "config.toml").read_text()))["model"] == "fasterrcnn_timm:test_convnext"
    assert "stem" in capsys.readouterr().out
    assert main(["evaluate", str(run)]) == 0


def test_classify_evaluate_and_resume(tmp_path: Path) -> None:
    for index in range(10):
        path = tmp_path / "data" / ("dark", "bright")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((40, 50, 3), 40 + 150 * (index % 2) + index, np.uint8))
    run = tmp_path / "run"
    options = ("--epochs", "1", "--image-size", "64", "--device", "cpu", "--workers", "0", "--output", str(run))
    model = ("--model", "classifier", "--backbone", "timm:test_convnext", "--weights", "none")
    assert main(["train", str(tmp_path / "data"), *model, *options]) == 0
    saved = flat_options(tomllib.loads((run / "config.toml").read_text()))
    assert saved["model"] == "classifier_timm:test_convnext"
    assert "backbone" not in saved
    assert main(["evaluate", str(run)]) == 0
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_backbone_needs_a_model() -> None:
    assert with_backbone(TrainConfig(model="resnet18")).model == "resnet18"
    with pytest.raises(DataError, match="--backbone timm:x without --model"):
        with_backbone(TrainConfig(backbone="timm:x"))


def test_the_run_folder_has_no_colon() -> None:
    options = TrainConfig(data="photos", model="classifier_timm:test_vit", task="classify")
    name = default_output(Plan.of(options, {}, {})).name
    assert name == "photos-classifier_timm-test_vit"
    assert architecture_of("classifier_timm:test_vit").task == "classify"
