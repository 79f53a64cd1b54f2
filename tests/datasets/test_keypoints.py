"""Keypoints stay on their image features in all transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest

from detseg.annotations.table import AnnotationTable
from detseg.datasets import Dataset, SampleKey
from detseg.datasets.augment import PRESETS, Augment, preset
from detseg.keypoints import KeypointSchema
from detseg.preprocess import Preprocessing

SIZE = (72, 96)
SWAPS = ((0, 1),)


def dots(points: list[tuple[float, float]]) -> tuple[np.ndarray, dict[str, Any]]:
    """A black image with a white 4 x 4 dot around each point (at whole pixels), and its target."""
    image = np.zeros((*SIZE, 3), np.uint8)
    for x, y in points:
        image[int(y) - 2 : int(y) + 2, int(x) - 2 : int(x) + 2] = 255
    keypoints = np.array([[[x, y, 2] for x, y in points]], np.float32)
    return image, {"boxes": np.array([[8, 8, 88, 64]], np.float32), "labels": np.array([1]), "keypoints": keypoints}


def centre(image: np.ndarray) -> np.ndarray:
    """x, y of the only bright dot; pixel centres are at 0.5."""
    moments = cv2.moments(image[..., 0], binaryImage=False)
    return np.array([moments["m10"], moments["m01"]]) / moments["m00"] + 0.5


@pytest.mark.parametrize(
    ("transform", "tolerance"),
    [
        (A.NoOp(), 0.01),
        (A.HorizontalFlip(p=1), 0.01),
        (A.VerticalFlip(p=1), 0.01),
        (A.Transpose(p=1), 0.01),
        (A.D4(p=1), 0.01),
        (A.RandomRotate90(p=1), 0.01),
        (A.Affine(scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), rotate=(-20, 20), p=1), 0.3),
        (A.Rotate((-30, 30), p=1), 0.3),
        (A.RandomResizedCrop(SIZE, scale=(0.7, 1.0), p=1), 0.8),
    ],
)
def test_a_point_stays_on_its_dot(transform: Any, tolerance: float) -> None:
    for seed in range(4):
        image, target = dots([(40 + 3 * seed, 30)])
        moved_image, moved = Augment([transform])(image, target, seed)
        assert moved["keypoints"][0, 0, 2] == 2
        np.testing.assert_allclose(moved["keypoints"][0, 0, :2], centre(moved_image), atol=tolerance)


def test_control_a_flip_with_pixel_centres_at_0_is_off_by_one_pixel() -> None:
    image, target = dots([(40, 30)])
    flipped = centre(A.HorizontalFlip(p=1)(image=image)["image"])
    assert abs((SIZE[1] - 1 - target["keypoints"][0, 0, 0]) - flipped[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [[[10, 20, 2], [30, 25, 2], [20, 40, 2]]],
        [[[10, 20, 1], [30, 25, 2], [0, 0, 0]]],  # occluded stays occluded, missing stays missing
        [
            [[0, 0, 0], [30, 25, 1], [20, 40, 2]],
            [[0, 0, 0]] * 3,
        ],  # left and right are swapped, also if one is missing
        [[[96, 72, 2], [0.5, 0.5, 1], [95.5, 0.5, 2]]],
    ],
)
def test_flip_equals_a_reference_implementation(points: list[Any]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    n = len(points)
    keypoints = np.array(points, np.float32).reshape(n, 3, 3)
    target = {
        "boxes": np.array([[4, 6, 60, 64]] * n, np.float32).reshape(n, 4),
        "labels": np.ones(n, np.int64),
        "keypoints": keypoints,
    }
    flipped_image, flipped = Augment([A.HorizontalFlip(p=1)])(image, target, 0, swaps=SWAPS)

    expected = keypoints[:, [1, 0, 2]].copy()
    labelled = expected[..., 2] > 0
    expected[labelled, 0] = SIZE[1] - expected[labelled, 0]
    assert (flipped_image == image[:, ::-1]).all()
    np.testing.assert_allclose(flipped["keypoints"], expected, atol=0.51 if 96 in keypoints else 1e-4)
    assert (flipped["keypoints"][..., 2] == expected[..., 2]).all()
    assert (flipped["keypoints"][~labelled] == 0).all()
    assert flipped["boxes"].tolist() == [[36, 6, 92, 64]] * n
    assert (target["keypoints"] == keypoints).all()  # the argument is not modified


def test_points_outside_the_image_are_not_visible_and_the_instance_remains() -> None:
    image, target = dots([(20, 20), (80, 60)])
    target["keypoints"][0, 1, 2] = 1
    _, moved = Augment([A.Crop(0, 0, 48, 40, p=1)])(image, target, 0)
    assert moved["keypoints"].tolist() == [[[20, 20, 2], [0, 0, 0]]]
    assert moved["boxes"].tolist() == [[8, 8, 48, 40]]
    _, moved = Augment([A.Crop(0, 0, 48, 40, p=1), A.Pad(padding=60, p=1)])(image, target, 0)
    assert moved["keypoints"][0, 1].tolist() == [0, 0, 0]  # it was cropped, and is not restored by the padding


@pytest.mark.parametrize("name", PRESETS)
def test_presets_return_valid_samples(name: str, make_table: Callable[..., AnnotationTable]) -> None:
    """``dataset[i]`` checks the sample; here for records with several, one and no instances."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 60, (3, 3, 2)), rng.integers(0, 3, (3, 3, 1))], axis=2)
    schema = KeypointSchema(("left", "right", "nose"), SWAPS)
    boxes = [[(0, 0, 60, 60), (10, 10, 30, 40)], [], [(5, 5, 50, 50)]]
    table = make_table([(60, 80)] * 3, boxes, keypoints=points, keypoint_schema=schema)
    dataset = Dataset(table, Preprocessing(48, 0), task="keypoints", augment=preset(name, "keypoints"), seed=3)
    visible = 0
    for index in range(3):
        for epoch in range(6):
            _, target = dataset[SampleKey(index, epoch)]
            assert target["keypoints"].shape == (len(target["boxes"]), 3, 3)
            visible += int((target["keypoints"][..., 2] > 0).sum())
    assert visible > 12
