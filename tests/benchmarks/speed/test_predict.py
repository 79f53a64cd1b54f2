"""Test the comparison of prediction at a small size, and that its check detects other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.benchmarks.speed.predict import Baseline, Ours, check_results, predicting
from detseg.benchmarks.speed.predict_folder import check_equal, predicting_folders
from detseg.benchmarks.speed.scenes_set import write_image
from detseg.errors import DataError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_predicting(tmp_path: Path) -> None:
    comparison = predicting(tmp_path, CPU, (150, 200), size=96, detections=10, turns=2)
    assert len(comparison.ours) == len(comparison.theirs) == 2
    assert "10 masks per image" in comparison.note


def test_results_that_differ_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    write_image(path, (96, 128), seed=0)
    torch.manual_seed(0)
    ours, theirs = Ours(96, 10, CPU), Baseline(96, 10, CPU)
    results = ours(path)
    with pytest.raises(DataError):
        check_results(results, theirs(path))  # random weights
    theirs.load(ours)
    same = theirs(path)
    check_results(results, same)
    with pytest.raises(DataError, match="equal work"):
        check_results(results, same[1:])
    with pytest.raises(DataError, match="not in the results of the baseline"):
        check_results(results, [result | {"category_id": result["category_id"] + 1} for result in same])
    with pytest.raises(DataError, match="of their pixels"):
        check_results(results, [result | {"segmentation": same[0]["segmentation"]} for result in same])


def test_predicting_folders(tmp_path: Path) -> None:
    comparisons = predicting_folders(tmp_path, CPU, (150, 200), images=3, turns=1)
    assert [len(comparison.ours) for comparison in comparisons] == [1, 1]
    with pytest.raises(DataError, match="image 1: the results differ"):
        check_equal([[], [{"category_id": 1, "score": 0.5}]], [[], [{"category_id": 1, "score": 0.6}]])
    with pytest.raises(DataError, match="results of 1 and 2 images"):
        check_equal([[]], [[], []])
