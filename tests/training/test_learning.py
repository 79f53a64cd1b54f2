"""A model learns four images by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("no_images")


@pytest.mark.slow
def test_four_images_are_learned_by_heart(parts: Path, train: Any, rows: Any, tmp_path: Path) -> None:
    options = ("--epochs", "25", "--augment", "none", "--no-val-loss", "--image-size", "128", "--rois-per-image", "64")
    learned = [row["train_loss"] for row in rows(train(parts, tmp_path / "learned", *options, "--lr", "2e-3"))]
    idle = [
        row["train_loss"] for row in rows(train(parts, tmp_path / "idle", *options, "--epochs", "2", "--lr", "1e-9"))
    ]
    assert learned[-1] < 0.5 * learned[0], learned
    assert idle[-1] > 0.8 * idle[0], idle  # control: without a rate nothing is learned
