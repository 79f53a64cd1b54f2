"""The comparison of pasting and scoring at a small size, and that its checks see a difference."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.benchmarks.speed.evaluate import check_masks, check_scores, pasting, scoring
from detseg.errors import DataError
from detseg.masks import mask_to_rle

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("detections", [1, 20])
def test_pasting(detections: int) -> None:
    found = pasting(detections=detections, size_hw=(400, 533), images=2, turns=2)
    assert len(found.ours) == len(found.theirs) == 2
    assert found.ratio > 0
    assert found.target == 20
    assert "IoU of all masks" in found.note


@pytest.mark.parametrize(("images", "objects"), [(1, 1), (8, 10)])
def test_scoring(images: int, objects: int) -> None:
    found = scoring(images=images, objects=objects, size_hw=(120, 160), turns=2)
    assert len(found.ours) == len(found.theirs) == 2
    assert "the same 12 numbers" in found.note


def test_masks_that_differ_are_refused() -> None:
    masks = np.zeros((3, 40, 60), np.uint8)
    masks[0, 5:35, 5:55] = 1
    masks[1] = masks[0]
    masks[1, 5, 5] = 0  # one pixel, a tie
    masks[2, 5:35, 8:58] = 1
    one, tie, moved = (mask_to_rle(mask) for mask in masks)
    assert check_masks([], []) == 1
    assert check_masks([one, one], [one, tie]) == 1 - 0.5 / coco_mask.area(one)
    with pytest.raises(DataError, match="of their pixels"):
        check_masks([one, one], [moved, moved])
    with pytest.raises(DataError, match="equal work"):
        check_masks([one], [])


def test_scores_that_differ_are_refused() -> None:
    check_scores([None, 0.5], [-1, 0.5])
    with pytest.raises(DataError, match="differ"):
        check_scores([None, 0.5], [-1, 0.5001])
    with pytest.raises(DataError, match="differ"):
        check_scores([0.0], [-1])
