"""Sets of boxes in other terms than pixels x, y, width, height are recognised; clean and careless ones pass."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.plausible import check_plausible
from detseg.classes import ClassMap
from detseg.errors import DataError

HW = (480, 640)


def clean(number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [[HW[1]], [HW[0]]], (number, 2, 2)), axis=2)
    return np.concatenate([corners[:, :, 0], corners[:, :, 1] - corners[:, :, 0]], axis=1)


def as_corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def as_centres(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def beyond(boxes: np.ndarray) -> np.ndarray:
    """Every box at the right edge, 10 px beyond it: objects that walk out of the frame."""
    boxes = boxes.copy()
    boxes[:, 0] = HW[1] - boxes[:, 2] + 10
    return boxes


def check(boxes: np.ndarray, size_hw: tuple[int, int] = HW) -> None:
    check_plausible(boxes, np.tile(np.array(size_hw), (len(boxes), 1)), "a.json")


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((0, 4)),
        clean(1),
        clean(500),
        clean(100) * [1, 1, 0, 0],  # all empty
        np.concatenate([clean(96), as_corners(clean(100))[50:54]]),  # a few wrong ones are dropped one by one
        np.concatenate([clean(50), beyond(clean(50, 1))]),
        as_corners(clean(4)),  # too few to judge
        np.array([[0.0, 0, 1, 1]] * 10),  # whole numbers: objects of one pixel
        clean(50) + np.array([-1.5, -1.5, 3, 3]),  # careless by less than two pixels
    ],
)
def test_no_false_alarm(boxes: np.ndarray) -> None:
    check(boxes)


def test_no_false_alarm_on_random_sets() -> None:
    for seed in range(200):
        check(clean(40, seed))


@pytest.mark.parametrize("seed", range(5))
def test_corners_are_recognised(seed: int) -> None:
    with pytest.raises(
        DataError, match=r"^a.json: \d+ of 100 boxes .* in an image of 640 x 480 .*corners x1, y1, x2, y2"
    ):
        check(as_corners(clean(100, seed)))


def test_centres_are_recognised() -> None:
    with pytest.raises(DataError, match="centre x, centre y"):
        check(as_centres(clean(100)))


def test_exchanged_sides_are_recognised() -> None:
    with pytest.raises(DataError, match="width and height are exchanged"):
        check(clean(200), (HW[1], HW[0]))


def test_images_that_were_resized_are_recognised() -> None:
    with pytest.raises(DataError, match="resized after they were annotated"):
        check(clean(100) * 2)


@pytest.mark.parametrize("number", [1, 100])
def test_normalised_boxes_are_recognised(number: int) -> None:
    with pytest.raises(DataError, match=r"all \d+ boxes have numbers of at most .* look normalised"):
        check(clean(number) / [640, 480, 640, 480])


def test_tiny_images_are_not_judged() -> None:
    check(np.array([[0.25, 0.5, 0.5, 0.5]]), (2, 2))


def test_the_builder_asks() -> None:
    builder = TableBuilder(ClassMap(("a",)), "", source="a.json")
    builder.add_image("a.png", HW)
    for box in as_corners(clean(100)):
        builder.add_instance(box, 1)
    with pytest.raises(DataError, match="corners"):
        builder.build()
