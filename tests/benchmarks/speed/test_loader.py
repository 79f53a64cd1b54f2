"""Test the comparison of loading at a small size, and that its check detects differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detseg.benchmarks.speed.loader import Baseline, Ours, check_samples, loading, reloading
from detseg.benchmarks.speed.scenes_set import boxes, scene_set
from detseg.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_set(tmp_path_factory.mktemp("scenes"), 2, (480, 640), 12)


@pytest.mark.parametrize("flipped", [False, True])
def test_loading(annotations: Path, flipped: bool) -> None:
    comparison = loading(annotations, 400, flipped=flipped, turns=2)
    assert len(comparison.ours) == len(comparison.theirs) == 2
    assert comparison.target == 5


@pytest.mark.parametrize("against_baseline", [False, True])
def test_reloading(annotations: Path, against_baseline: bool) -> None:
    comparison = reloading(annotations, 120, against_baseline=against_baseline, turns=2)
    assert "equal samples" in comparison.note
    assert (comparison.target is None) != against_baseline


def test_both_implementations_flip_half_of_the_images(annotations: Path) -> None:
    for dataset in (Ours(annotations, 120, flipped=True), Baseline(annotations, 120, flipped=True)):
        images = [dataset[0][0] for _ in range(40)]
        same = [torch.allclose(image, images[0], atol=1e-5) for image in images]
        flipped = [torch.allclose(image.flip(-1), images[0], atol=1e-5) for image in images]
        assert 8 <= sum(flipped) == len(images) - sum(same) <= 32


def test_samples_that_differ_are_an_error(annotations: Path) -> None:
    ours, theirs = [Ours(annotations, 400)[0]], [Baseline(annotations, 400)[0]]
    image, masks = theirs[0]
    assert check_samples(ours, theirs) > 0.95
    with pytest.raises(DataError, match="masks have an IoU"):
        check_samples(ours, [(image, masks.roll(9, -1))])
    with pytest.raises(DataError, match="images differ"):
        check_samples(ours, [(1 - image, masks)])
    with pytest.raises(DataError, match="equal work"):
        check_samples(ours, [(image, masks[1:])])


def test_boxes_are_small_and_large_and_inside_the_image() -> None:
    xyxy = boxes(np.random.default_rng(0), 1000, (480, 640))
    assert (xyxy[:, :2] >= 0).all()
    assert (xyxy[:, 2:] <= [640, 480]).all()
    sides = np.sqrt((xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1))
    assert 0.25 < (sides < 32).mean() < 0.5
    assert 0.2 < (sides > 96).mean() < 0.4
