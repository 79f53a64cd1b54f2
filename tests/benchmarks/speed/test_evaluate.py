"""Test the comparison of pasting and evaluation at a small size, and that its checks detect differences."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.benchmarks.speed.evaluate import check_masks, check_scores, evaluation_speed, pasting_speed
from detseg.errors import DataError
from detseg.masks import mask_to_rle

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("detections", [1, 20])
def test_pasting_speed(detections: int) -> None:
    comparison = pasting_speed(detections=detections, size_hw=(400, 533), images=2, turns=2)
    assert len(comparison.ours) == len(comparison.theirs) == 2
    assert comparison.ratio > 0
    assert comparison.target == 20
    assert "IoU of all masks" in comparison.note


@pytest.mark.parametrize(("images", "objects"), [(1, 1), (8, 10)])
def test_evaluation_speed(images: int, objects: int) -> None:
    comparison = evaluation_speed(images=images, objects=objects, size_hw=(120, 160), turns=2)
    assert len(comparison.ours) == len(comparison.theirs) == 2
    assert "the same 12 numbers" in comparison.note


def test_masks_that_differ_are_an_error() -> None:
    masks = np.zeros((3, 40, 60), np.uint8)
    masks[0, 5:35, 5:55] = 1
    masks[1] = masks[0]
    masks[1, 5, 5] = 0  # one pixel differs
    masks[2, 5:35, 8:58] = 1
    mask, one_pixel, shifted = (mask_to_rle(pixels) for pixels in masks)
    assert check_masks([], []) == 1
    assert check_masks([mask, mask], [mask, one_pixel]) == 1 - 0.5 / coco_mask.area(mask)
    with pytest.raises(DataError, match="of their pixels"):
        check_masks([mask, mask], [shifted, shifted])
    with pytest.raises(DataError, match="equal work"):
        check_masks([mask], [])


def test_scores_that_differ_are_an_error() -> None:
    check_scores([None, 0.5], [-1, 0.5])
    with pytest.raises(DataError, match="differ"):
        check_scores([None, 0.5], [-1, 0.5001])
    with pytest.raises(DataError, match="differ"):
        check_scores([0.0], [-1])
