"""Data and options for runs of a small classifier, of about a second each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Classify = Callable[..., Path]


@pytest.fixture(scope="session")
def colour_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write class folders of red, green and blue images: frames of four films, six of each colour."""
    root = tmp_path_factory.mktemp("colour_folders") / "data"
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "green", "red")):
        (root / name).mkdir(parents=True)
        for index in range(6):
            image = rng.integers(0, 100, (40, 48, 3)).astype(np.uint8)
            image[..., channel] += 120
            cv2.imwrite(str(root / name / f"film{index % 4}_{name}_{index}.png"), image)
    return root


@pytest.fixture(scope="session")
def classify(colour_folders: Path) -> Classify:
    """``classify(output, *options)`` trains on ``colour_folders``, which must succeed, and returns the run folder."""
    from detseg.cli import main

    def run(output: Path, *options: str, data: Path = colour_folders) -> Path:
        model = ["--model", "mobilenet_v3_small", "--weights", "none", "--image-size", "64", "--device", "cpu"]
        training = ["--workers", "0", "--batch-size", "6", "--augment", "none", "--epochs", "2", "--group", "none"]
        code = main(["train", str(data), "--output", str(output), *model, *training, *options])
        assert code == 0, f"exit code {code}"
        return output

    return run
