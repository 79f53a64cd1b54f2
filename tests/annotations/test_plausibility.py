"""Boxes that are not x, y, width, height in pixels are detected; correct and slightly inaccurate boxes pass."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.plausibility import check_plausible
from detseg.classes import ClassMap
from detseg.errors import DataError

HW = (480, 640)


def correct_boxes(number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [[HW[1]], [HW[0]]], (number, 2, 2)), axis=2)
    return np.concatenate([corners[:, :, 0], corners[:, :, 1] - corners[:, :, 0]], axis=1)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_centres(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def beyond_image(boxes: np.ndarray) -> np.ndarray:
    """Move every box to the right edge, 10 px beyond it: objects that leave the image."""
    boxes = boxes.copy()
    boxes[:, 0] = HW[1] - boxes[:, 2] + 10
    return boxes


def check(boxes: np.ndarray, size_hw: tuple[int, int] = HW) -> None:
    check_plausible(boxes, np.tile(np.array(size_hw), (len(boxes), 1)), "a.json")


@pytest.mark.parametrize(
    "boxes",
    [
        np.zeros((0, 4)),
        correct_boxes(1),
        correct_boxes(500),
        correct_boxes(100) * [1, 1, 0, 0],  # all empty
        np.concatenate(
            [correct_boxes(96), to_corners(correct_boxes(100))[50:54]]
        ),  # a few wrong boxes are dropped one by one
        np.concatenate([correct_boxes(50), beyond_image(correct_boxes(50, 1))]),
        to_corners(correct_boxes(4)),  # too few to decide
        np.array([[0.0, 0, 1, 1]] * 10),  # whole numbers: objects of one pixel
        correct_boxes(50) + np.array([-1.5, -1.5, 3, 3]),  # inaccurate by less than two pixels
    ],
)
def test_no_false_alarm(boxes: np.ndarray) -> None:
    check(boxes)


def test_no_false_alarm_on_random_sets() -> None:
    for seed in range(200):
        check(correct_boxes(40, seed))


@pytest.mark.parametrize("seed", range(5))
def test_corners_are_detected(seed: int) -> None:
    with pytest.raises(
        DataError, match=r"^a.json: \d+ of 100 boxes .* in an image of 640 x 480 .*corners x1, y1, x2, y2"
    ):
        check(to_corners(correct_boxes(100, seed)))


def test_centres_are_detected() -> None:
    with pytest.raises(DataError, match="centre x, centre y"):
        check(to_centres(correct_boxes(100)))


def test_exchanged_sides_are_detected() -> None:
    with pytest.raises(DataError, match="width and height are exchanged"):
        check(correct_boxes(200), (HW[1], HW[0]))


def test_images_that_were_resized_are_detected() -> None:
    with pytest.raises(DataError, match="resized after they were annotated"):
        check(correct_boxes(100) * 2)


@pytest.mark.parametrize("number", [1, 100])
def test_normalised_boxes_are_detected(number: int) -> None:
    with pytest.raises(DataError, match=r"all \d+ boxes have numbers of at most .* look normalised"):
        check(correct_boxes(number) / [640, 480, 640, 480])


def test_tiny_images_are_not_checked() -> None:
    check(np.array([[0.25, 0.5, 0.5, 0.5]]), (2, 2))


def test_the_builder_checks_boxes() -> None:
    builder = TableBuilder(ClassMap(("a",)), "", source="a.json")
    builder.add_image("a.png", HW)
    for box in to_corners(correct_boxes(100)):
        builder.add_instance(box, 1)
    with pytest.raises(DataError, match="corners"):
        builder.build()
