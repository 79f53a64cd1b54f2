"""Curves and confusion matrices: a PNG that is not blank, or False if matplotlib is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.reports.confusion import write_confusion
from detseg.reports.curves import _panels, plot_curves

DETECTION: dict[str, Any] = {
    "train_loss": 1.5, "train_loss_classifier": 0.9, "train_loss_mask": 0.6, "val_loss": 1.8, "lr": 0.01,
    "bbox_AP": 0.2, "bbox_AP50": 0.4, "bbox_APs": 0.1, "segm_AP": None, "seconds": 3.0,
}  # fmt: skip
CLASSIFICATION: dict[str, Any] = {
    "train_loss": 1.5, "train_loss_classifier": 1.5, "val_loss": 1.2, "accuracy": 0.5, "top5_accuracy": 0.9, "lr": 0.1,
}  # fmt: skip

FIELDS: dict[str, Any] = {
    "train_loss": 1.5, "train_loss_colour": 1.0, "train_loss_größe in $m^$": 0.5, "val_loss": 1.2,
    "val_loss_colour": 0.9,
    "accuracy": 0.5, "accuracy_colour": 0.7, "balanced_accuracy_colour": 0.6, "accuracy_größe in $m^$": 0.3, "lr": 0.1,
}  # fmt: skip


def image(path: Path) -> np.ndarray:
    return cv2.imread(str(path))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [DETECTION],
        [DETECTION] * 3,
        [CLASSIFICATION] * 40,
        [FIELDS] * 2,
        [{"train_loss": 1.0, "train_accuracy_a": 0.5, "train_accuracy_$b": None}] * 2,
        [{}, DETECTION],
        [{"train_loss": 1.5}, DETECTION, {"train_loss": 1.5}, DETECTION],
        [{"train_loss": float("nan")}],
        [{"train_loss": 0.0, "lr": 0.0}],
        [{"train_loss": None, "bbox_AP": None}],
    ],
)
def test_curves(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot_curves([{"epoch": epoch, **row} for epoch, row in enumerate(rows)], tmp_path / "curves.png")
    assert (image(tmp_path / "curves.png") < 128).any()


def test_panels_and_lines() -> None:
    panels = {title: [line[0] for line in lines] for title, lines in _panels([DETECTION])}
    assert panels == {
        "loss": ["train", "val"],
        "loss terms": ["classifier (train)", "mask (train)"],
        "validation metrics": ["bbox AP", "bbox AP50"],
        "learning rate": ["lr"],
    }
    assert dict(_panels([CLASSIFICATION]))["loss terms"] == []  # one term is the loss itself
    panels = {title: [line[0] for line in lines] for title, lines in _panels([FIELDS])}
    assert panels["loss terms"][:3] == ["colour (train)", "colour (val)", "größe in $m^$ (train)"]
    assert panels["validation metrics"] == ["accuracy", "accuracy colour", "accuracy größe in $m^$"]
    panels = {
        title: [line[0] for line in lines] for title, lines in _panels([CLASSIFICATION | {"train_accuracy": 0.7}])
    }
    assert panels["metrics"] == ["accuracy", "top5 accuracy", "accuracy (train)"]
    assert panels["loss terms"] == []


@pytest.mark.parametrize(
    ("names", "matrix"),
    [
        (["cat"], np.array([[0]])),
        (["cat"], np.array([[3]])),
        (["cat", "猫"], np.array([[3, 1], [0, 0]])),
        ([f"class {i}" for i in range(40)], np.eye(40, dtype=int)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_confusion(names: list[str], matrix: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_confusion(names, matrix, tmp_path / "confusion.png")
    assert (image(tmp_path / "confusion.png") < 128).any()


@pytest.mark.parametrize(("names", "shape"), [([], (0, 0)), (["a", "b"], (2, 3)), (["a"], (2, 2))])
def test_confusion_rejects_other_shapes(names: list[str], shape: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        write_confusion(names, np.zeros(shape, int), tmp_path / "x.png")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert plot_curves([{"epoch": 0, "train_loss": 1.0}], tmp_path / "a.png") is False
    assert write_confusion(["a"], np.array([[1]]), tmp_path / "b.png") is False
    assert list(tmp_path.iterdir()) == []


def test_import_does_not_load_matplotlib() -> None:
    code = "import sys, detseg.reports.curves, detseg.reports.confusion; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
