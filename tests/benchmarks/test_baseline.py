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
    [("--weights", "coco"), ("--model", "maskrcnn_resnet18_fpn"), ("--model", "fasterrcnn_timm:x")],
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


def test_data_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "baseline"]) == 1
    assert "benchmark baseline without data" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("baseline", "--budgets", "[3]"), ("baseline", "--minutes", "3"), ("baseline", "--backbone", "timm:x"),
        ("transfer", "--model", "resnet18"), ("transfer", "--weights", "none"), ("transfer", "--patience", "2"),
        ("step", "--data", "DATA"),
    ],
)  # fmt: skip
def test_options_of_another_comparison_do_not_exist(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["benchmark", *words])
    assert left.value.code == 2
    assert words[1] in capsys.readouterr().err
