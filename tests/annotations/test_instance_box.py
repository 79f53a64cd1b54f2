"""The box of an instance: as stated, of its outline, with its corners sorted, or around its keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detseg.annotations.instance_box import choose_box, cvat_rotation, rotated_box, sorted_box
from detseg.annotations.repair_log import RepairLog
from detseg.masks import mask_to_rle

HW = (40, 60)
RING = [np.array([[10.0, 10], [30, 10], [30, 25], [10, 25]])]
OUTLINE = (10, 10, 20, 15)
LINE = [np.array([[10.0, 10], [30, 10], [20, 10]])]
POINTS = np.array([[5.0, 5, 2], [25, 35, 1], [0, 0, 0]])
AROUND = (5, 5, 20, 30)
EMPTY = mask_to_rle(np.zeros(HW))


@pytest.mark.parametrize(
    ("stated", "outline", "points", "expected", "kinds"),
    [
        (None, None, None, None, []),
        ([1, 2, 3, 4], None, None, (1, 2, 3, 4), []),
        ([1, 2, 3, 4], RING, POINTS, (1, 2, 3, 4), []),  # a sound box is not changed
        ([-5, 2, 8, 4], RING, POINTS, (-5, 2, 8, 4), []),  # it is clipped later
        (None, RING, POINTS, OUTLINE, []),
        ([0, 0, 0, 0], RING, POINTS, OUTLINE, ["no width"]),
        ([1, 2, 3, 0], RING, None, OUTLINE, ["no height"]),
        ([70, 2, 3, 4], RING, None, OUTLINE, ["outside the image"]),
        ([float("nan"), 2, 3, 4], RING, None, OUTLINE, ["not finite"]),
        ([30, 25, -20, -15], RING, None, OUTLINE, ["exchanged corners"]),
        ([4, 6, -3, -4], LINE, None, (1, 2, 3, 4), ["corners sorted"]),  # the outline has no height
        ([4, 6, -3, -4], EMPTY, POINTS, (1, 2, 3, 4), ["corners sorted"]),
        ([4, 6, -3, 0], None, None, (1, 6, 3, 0), ["corners sorted"]),  # and dropped later
        ([4, 6, -3, 0], None, POINTS, AROUND, ["corners sorted", "around the keypoints used: the stated box has no h"]),
        (None, EMPTY, POINTS, AROUND, ["around the keypoints used: there is no other"]),
        (None, None, POINTS, AROUND, ["around the keypoints used"]),
        (None, None, POINTS[2:], None, []),
        ([0, 0, 0, 0], None, POINTS[2:], (0, 0, 0, 0), []),
        (None, LINE, None, (10, 10, 20, 0), []),
    ],
)
def test_choices(stated: Any, outline: Any, points: Any, expected: Any, kinds: list[str]) -> None:
    notes = RepairLog()
    box = choose_box(stated, outline, points, HW, "a.json, annotation 1", notes)
    assert box == expected
    assert len(notes.counts) == len(kinds)
    for kind, line in zip(kinds, notes.lines(), strict=True):
        assert kind in line
        assert "a.json, annotation 1" in line


def test_sorted_boxes_have_the_same_corners() -> None:
    rng = np.random.default_rng(0)
    for first, second in rng.integers(0, 50, (100, 2, 2)).tolist():
        wanted = (*np.minimum(first, second), *np.abs(np.subtract(first, second)))
        for a, b in ((first, second), (second, first)):
            assert sorted_box((a[0], a[1], b[0] - a[0], b[1] - a[1])) == wanted


def test_rotated_boxes_contain_their_corners() -> None:
    assert rotated_box((10, 20, 8, 4), 90) == pytest.approx((12, 18, 4, 8))
    assert rotated_box((10, 20, 8, 4), 180) == pytest.approx((10, 20, 8, 4))
    assert rotated_box((10, 20, 4, 4), 45) == pytest.approx((12 - 8**0.5, 22 - 8**0.5, 32**0.5, 32**0.5))


@pytest.mark.parametrize(
    ("attributes", "degrees"),
    [
        (None, 0),
        ([], 0),
        ("x", 0),
        ({}, 0),
        ({"rotation": "45"}, 0),
        ({"rotation": 45}, 45),
        ({"rotation": -90.0}, 270),
    ],
)
def test_rotation_of_cvat(attributes: Any, degrees: float) -> None:
    assert cvat_rotation(attributes) == degrees
