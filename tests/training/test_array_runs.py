"""Training on NumPy arrays has the same losses and weights, bit for bit, as on the same images as PNG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.checkpoints import load_checkpoint
from tests.annotations.formats.arrays.test_arrays import as_arrays
from tests.training.conftest import Classify

TIMES = ("seconds", "time", "images_per", "step_seconds", "wall")


def losses(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if "loss" in key or "accuracy" in key} for line in lines]


def test_arrays_train_as_png(classify: Classify, colour_folders: Path, tmp_path: Path) -> None:
    png = classify(tmp_path / "png")
    arrays = as_arrays(colour_folders, tmp_path / "arrays")
    npy = classify(tmp_path / "npy", data=arrays)
    assert losses(npy) == losses(png)
    assert any(losses(png))
    first, second = (load_checkpoint(run / "last.safetensors").weights for run in (png, npy))
    assert all(torch.equal(first[name], second[name]) for name in first)

    changed = next(arrays.glob("*/film0*_0.npy"))  # control: other pixels give other losses
    np.save(changed, np.load(changed) // 2)
    assert losses(classify(tmp_path / "changed", data=arrays)) != losses(png)
