"""Test that a model overfits four images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("no_images")


@pytest.mark.slow
def test_four_images_are_overfitted(parts: Path, train: Any, rows: Any, tmp_path: Path) -> None:
    options = ("--epochs", "25", "--augment", "none", "--no-val-loss", "--image-size", "128", "--rois-per-image", "64")
    trained = [row["train_loss"] for row in rows(train(parts, tmp_path / "learned", *options, "--lr", "2e-3"))]
    untrained = [
        row["train_loss"] for row in rows(train(parts, tmp_path / "idle", *options, "--epochs", "2", "--lr", "1e-9"))
    ]
    assert trained[-1] < 0.5 * trained[0], trained
    assert untrained[-1] > 0.8 * untrained[0], untrained  # control: with almost no learning rate
