"""Test what is saved and printed when a step fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import detseg.engine.update as update_module
from detseg.cli import main
from detseg.datasets import Dataset

pytestmark = pytest.mark.usefixtures("no_images")

SMALL = (
    *("--task", "detect", "--model", "fasterrcnn_mobilenet_v3_large_fpn_slim", "--weights", "none"),
    *("--image-size", "64", "--epochs", "1", "--rois-per-image", "16", "--device", "cpu", "--no-val-loss"),
)


def test_a_batch_that_is_not_finite_is_reported_saved_and_replayed(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, forward = tmp_path / "run", update_module.forward

    def with_infinite_weight(model: Any, batch: Any, *args: Any) -> Any:
        if batch.index == 1:
            with torch.no_grad():
                model.roi_heads.box_predictor.cls_score.weight[0, 0] = float("inf")
        return forward(model, batch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(update_module, "forward", with_infinite_weight)
        assert main(["train", str(parts), "--output", str(run), *SMALL]) == 1
    printed = capsys.readouterr()
    assert "not finite" in printed.err
    assert "loss_classifier" in printed.err
    assert ".jpg" in printed.err, "the image names are printed"
    path = run / "not-finite.safetensors"
    assert f"--replay {path}" in printed.out
    assert main(["train", "--replay", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not finite" in lines[0]
    assert lines[2].split()[:2] == ["image_id", "size"]
    assert len(lines) >= 5, "two images"
    assert all("nan" in line or "inf" in line for line in lines[-2:])

    weights = [*run.parent.glob("**/best.safetensors")]
    assert weights == [], "no best weights exist yet"
    assert main(["train", "--replay", str(parts / "instances_train.json")]) == 1


def test_out_of_memory_error_states_batch_size_and_image_size(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(update_module, "forward", out_of_memory)
    assert main(["train", str(parts), "--output", str(tmp_path / "run"), *SMALL]) == 1
    error = capsys.readouterr().err
    assert "out of memory with batch size 2 and image size 64" in error
    assert "the image with the most objects is" in error
    assert "--accumulate" in error


def test_a_killed_loader_worker_is_a_one_line_error(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    item, main_process = Dataset.__getitem__, os.getpid()

    def killed(self: Dataset, key: Any) -> Any:
        if os.getpid() != main_process:
            os.kill(os.getpid(), signal.SIGKILL)
        return item(self, key)

    monkeypatch.setattr(Dataset, "__getitem__", killed)
    assert main(["train", str(parts), "--output", str(tmp_path / "run"), *SMALL, "--workers", "1"]) == 1
    error = capsys.readouterr().err
    assert "DataLoader worker" in error
    assert "lower --workers" in error
