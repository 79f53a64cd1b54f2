"""Instances from label images, and the guess of the meaning of their values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from detseg.annotations.formats.masks.values import MIN_REGION, guess_values, instances_by_value, regions_by_class


@pytest.mark.parametrize(
    ("value_sets", "expected"),
    [
        ([], "binary"),
        ([{0}], "binary"),
        ([{0, 255}, {0}, {255}], "binary"),
        ([{0, 1}, {0, 1}], "binary"),
        ([{0, 1, 255}, {0, 2, 255}], "class"),
        ([{0, 1, 2}, {0, 2}, {0, 3}], "class"),
        ([{0, 1, 2}, {0, 1, 2}], "class"),
        ([{0, 1, 2}, {0, 1}, {0, 1, 2, 3}], "instance"),
        ([{0, 1, 2, 3}], "instance"),
        ([set(range(200)), set(range(256))], "instance"),
    ],
)
def test_guess(value_sets: list[set[int]], expected: str) -> None:
    values, reason = guess_values([frozenset(values) for values in value_sets])
    assert values == expected
    assert reason


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_every_value_is_an_instance(dtype: type) -> None:
    generator = np.random.default_rng(0)
    values = np.zeros((60, 80), dtype)
    for number in range(1, 41):
        top, left = generator.integers(0, 50), generator.integers(0, 70)
        values[top : top + 9, left : left + 7] = number
    instances = instances_by_value(values)
    assert [value for value, _ in instances] == [value for value in np.unique(values).tolist() if value]
    for value, rle in instances:
        assert rle == coco_mask.encode(np.asfortranarray((values == value).astype(np.uint8)))
    assert instances_by_value(np.zeros((4, 5), dtype)) == []


def test_huge_ids() -> None:
    values = np.zeros((6, 6), np.int32)
    values[0, :3], values[4, 4:] = 2**30, 7
    assert [(value, int(coco_mask.area(rle))) for value, rle in instances_by_value(values)] == [(7, 2), (2**30, 3)]


def test_255_is_a_border_with_small_values_and_an_instance_alone() -> None:
    values = np.zeros((10, 10), np.uint8)
    values[:3], values[3], values[4:6] = 1, 255, 2
    assert [value for value, _ in instances_by_value(values)] == [1, 2]
    assert [value for value, _ in instances_by_value(np.where(values > 0, 255, 0).astype(np.uint8))] == [255]


def test_regions_of_a_class() -> None:
    values = np.zeros((40, 60), np.uint8)
    values[0:5, 0:5] = 1
    values[5:9, 5:9] = 1  # touches the first by a corner: one region with 8 neighbours
    values[20:30, 0:10] = 1
    values[20:30, 10:20] = 2  # touches another class: separate regions
    values[35:39, 50:54] = 2  # 16 pixels: not dropped
    values[35, 30:45] = 2  # 15 pixels: dropped
    values[10:15, 30:40] = 255
    regions, dropped = regions_by_class(values)
    assert [(value, int(coco_mask.area(rle))) for value, rle in regions] == [(1, 41), (1, 100), (2, 100), (2, 16)]
    assert dropped == [(2, 15)]
    assert MIN_REGION == 16
    number, _ = cv2.connectedComponents((values == 1).astype(np.uint8), connectivity=4)
    assert number - 1 == 3  # control: with 4 neighbours the corner does not connect them
