"""Test the comparison with the baseline loop: both run on one split, and invalid options are errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.benchmarks.baseline import seconds_to
from detseg.cli import main

TINY = (
    *("--model", "fasterrcnn_mobilenet_v2_fpn_slim", "--weights", "none", "--image-size", "64", "--epochs", "1"),
    *("--batch-size", "2", "--workers", "0", "--device", "cpu", "--rois-per-image", "16", "--no-val-loss"),
)


@pytest.mark.parametrize(
    "options",
    [("--weights", "coco"), ("--model", "maskrcnn_resnet18_fpn"), ("--model", "fasterrcnn", "--backbone", "timm:x")],
)
def test_options_that_cannot_be_compared(
    options: tuple[str, ...], parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "baseline", str(parts), "--output", str(tmp_path / "b"), *TINY, *options]) == 1
    assert "both implementations need the same backbone and weights" in capsys.readouterr().err


def test_both_implementations_run(parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "bench"
    assert main(["benchmark", "baseline", str(parts), "--output", str(output), "--seeds", "[3]", *TINY]) == 0
    rows = json.loads((output / "benchmark.json").read_text())
    assert [(row["way"], row["seed"]) for row in rows] == [("detseg", 3), ("torchvision baseline", 3)]
    assert all(row["minutes"] > 0 and 0 <= row["AP50"] <= 1 for row in rows)
    assert all(row["minutes_to_baseline_AP"] is None or row["minutes_to_baseline_AP"] >= row["minutes"] for row in rows)
    assert "torchvision baseline" in capsys.readouterr().out
    assert main(["benchmark", "baseline", str(parts), "--output", str(output), *TINY]) == 1
    assert "already contains a benchmark" in capsys.readouterr().err


def test_seconds_to_a_score() -> None:
    """Setup time counts, and every epoch up to the first with this score, including its evaluation."""
    epochs = [{"seconds": 10.0, "bbox_AP": 0.2}, {"seconds": 12.0, "bbox_AP": 0.5}, {"seconds": 11.0}]  # not evaluated
    assert seconds_to(0.1, epochs, 40.0) == pytest.approx(17)
    assert seconds_to(0.5, epochs, 40.0) == pytest.approx(29)
    assert seconds_to(0.51, epochs, 40.0) is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "benchmark baseline without data"),
        (("DATA", "--budgets", "[3]"), "--budgets [3.0]: an option of benchmark transfer only"),
        (("DATA", "--minutes", "3"), "--minutes 3: both implementations train for the same epochs"),
    ],
)
def test_options_that_do_not_apply(options: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "baseline", *options]) == 1
    assert expected in capsys.readouterr().err
