"""Segmentations packed into flat arrays come back as they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detseg.annotations.segmentation import Segmentation, SegmentationColumn
from detseg.masks import mask_to_rle

TRIANGLE = np.array([[0.25, 1], [5, 1], [5, 6.125]])
SQUARE = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])
RLE = mask_to_rle(np.eye(4, 6))


def same(a: Segmentation, b: Segmentation) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize(
    "segmentations",
    [
        [],
        [[TRIANGLE]],
        [None],
        [RLE],
        [None, [TRIANGLE, SQUARE], RLE, None, [SQUARE], mask_to_rle(np.zeros((3, 3))), [TRIANGLE], None],
    ],
)
def test_round_trip(segmentations: list[Any]) -> None:
    column = SegmentationColumn.from_list(segmentations)
    assert len(column) == len(segmentations)
    assert column.points.dtype == np.float64
    assert column.counts.dtype == np.uint8
    for i, segmentation in enumerate(segmentations):
        assert same(column[i], segmentation)
    assert column.present().tolist() == [segmentation is not None for segmentation in segmentations]


@pytest.mark.parametrize("cut", range(6))
def test_concatenated_columns_equal_one(cut: int) -> None:
    segmentations: list[Any] = [[TRIANGLE, SQUARE], None, RLE, [SQUARE], RLE]
    parts = [SegmentationColumn.from_list(part) for part in (segmentations[:cut], [], segmentations[cut:])]
    joined, whole = SegmentationColumn.concatenate(parts), SegmentationColumn.from_list(segmentations)
    for name in ("points", "ring_start", "rings", "counts", "counts_start", "rle_hw"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        assert getattr(joined, name).dtype == getattr(whole, name).dtype
