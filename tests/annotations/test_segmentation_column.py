"""Segmentations packed into flat arrays are unpacked unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detseg.annotations.segmentation import Segmentation, SegmentationColumn, packed, pixels
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
    assert column.counts.dtype == np.uint8
    for i, segmentation in enumerate(segmentations):
        unpacked = column[i]
        assert same(unpacked, segmentation)
        assert all(ring.dtype == np.float64 for ring in (unpacked if isinstance(unpacked, list) else []))
    assert column.present().tolist() == [segmentation is not None for segmentation in segmentations]


@pytest.mark.parametrize("cut", range(6))
def test_concatenated_columns_equal_one(cut: int) -> None:
    segmentations: list[Any] = [[TRIANGLE, SQUARE], None, RLE, [SQUARE], RLE]
    parts = [SegmentationColumn.from_list(part) for part in (segmentations[:cut], [], segmentations[cut:])]
    joined, whole = SegmentationColumn.concatenate(parts), SegmentationColumn.from_list(segmentations)
    for name in ("points", "ring_start", "rings", "counts", "counts_start", "rle_hw"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
        assert getattr(joined, name).dtype == getattr(whole, name).dtype


@pytest.mark.parametrize("rows", [[], [0], [4, 3, 2, 1, 0], [1, 2, 4], [0, 1, 2, 3, 4], [2, 2, 0]])
def test_take(rows: list[int]) -> None:
    segmentations: list[Any] = [[TRIANGLE, SQUARE], None, RLE, [SQUARE], RLE]
    taken = SegmentationColumn.from_list(segmentations).take(np.array(rows, np.int64))
    assert len(taken) == len(rows)
    assert all(same(taken[i], segmentations[row]) for i, row in enumerate(rows))


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ([], np.int32),
        ([[485.56, 0.1], [1e6, -3.07]], np.int32),
        ([[0.125, 1]], np.float64),
        ([[1 / 3, 1]], np.float64),
        ([[1e8, 1]], np.float64),  # its hundredths do not fit in int32
        ([[np.nan, 1]], np.float64),
        ([[0.1 + 0.2, 1]], np.float64),
    ],
)
def test_packed_as_int32_only_if_exact(numbers: list[list[float]], dtype: type) -> None:
    points = np.array(numbers, np.float64).reshape(-1, 2)
    stored = packed(points)
    assert stored.dtype == dtype
    np.testing.assert_array_equal(pixels(stored), points)


def test_every_number_with_two_decimals_is_exact() -> None:
    hundredths = np.arange(-200_000, 2_000_000)
    read = np.array([float(f"{value / 100:.2f}") for value in hundredths[::7].tolist()])
    np.testing.assert_array_equal(hundredths[::7] / 100, read)
    assert packed(read.reshape(-1, 1)).dtype == np.int32
