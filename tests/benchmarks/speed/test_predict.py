"""The comparison of prediction at a small size, and that its check sees other weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.benchmarks.speed.predict import Baseline, Ours, check_results, predicting
from detseg.benchmarks.speed.scenes_set import write_image
from detseg.errors import DataError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_predicting(tmp_path: Path) -> None:
    found = predicting(tmp_path, CPU, (150, 200), size=96, detections=10, turns=2)
    assert len(found.ours) == len(found.theirs) == 2
    assert "10 masks an image" in found.note


def test_results_that_differ_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    write_image(path, (96, 128), seed=0)
    torch.manual_seed(0)
    ours, theirs = Ours(96, 10, CPU), Baseline(96, 10, CPU)
    found = ours(path)
    with pytest.raises(DataError):
        check_results(found, theirs(path))  # random weights
    theirs.load(ours)
    same = theirs(path)
    check_results(found, same)
    with pytest.raises(DataError, match="equal work"):
        check_results(found, same[1:])
    with pytest.raises(DataError, match="none of the baseline's"):
        check_results(found, [one | {"category_id": one["category_id"] + 1} for one in same])
    with pytest.raises(DataError, match="of their pixels"):
        check_results(found, [one | {"segmentation": same[0]["segmentation"]} for one in same])
