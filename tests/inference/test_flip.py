"""Flip averaging: what is found in an image and in its mirror image is one output."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from detseg.inference.flip import merged, mirrored
from detseg.structures import ClassPrediction, FieldPredictions, Prediction, RawPrediction
from tests.inference.coloured_blobs import BLUE, POINTS, RED, blob_runs, blobs, opened

__all__ = ["blob_runs"]

DESCRIPTION = SimpleNamespace(score_threshold=0.05, detections_per_image=3, keypoints=None)
IMAGE = blobs((5, 5, 30, 25, BLUE), (50, 30, 60, 38, RED))


@pytest.mark.usefixtures("blob_runs")
@pytest.mark.parametrize("task", ["detect", "segment", "keypoints"])
def test_a_network_that_sees_mirror_images_alike_gives_the_same(task: str) -> None:
    plain, flipped = opened(task)(IMAGE), opened(task, flip=True)(IMAGE)
    assert isinstance(plain, Prediction)
    assert isinstance(flipped, Prediction)
    np.testing.assert_allclose(flipped.boxes, plain.boxes, atol=1e-4)
    np.testing.assert_allclose(flipped.scores, plain.scores, atol=1e-6)
    np.testing.assert_array_equal(flipped.labels, plain.labels)
    assert flipped.rles == plain.rles
    if task == "keypoints":
        assert plain.keypoints is not None
        assert flipped.keypoints is not None
        np.testing.assert_allclose(flipped.keypoints, plain.keypoints, atol=1e-4)
        names = dict(zip(POINTS.names, flipped.keypoints[0, :, 0].tolist(), strict=True))
        assert names["left_end"] < names["right_end"], "left is left"
    assert len(opened(task, flip=True)(blobs())) == 0  # type: ignore[arg-type]


def raw(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> RawPrediction:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return RawPrediction(array, np.array(labels or [1] * len(array), np.int64), np.array(scores, np.float32))


def test_boxes_of_one_object_are_averaged_by_score() -> None:
    second = raw([[100 - 22, 10, 100 - 12, 20]], [0.4])
    output = merged(raw([[10, 10, 20, 20]], [0.8]), second, 100, DESCRIPTION)
    assert isinstance(output, RawPrediction)
    np.testing.assert_allclose(output.boxes, [[10 + 2 / 3, 10, 20 + 2 / 3, 20]], atol=1e-4)
    np.testing.assert_allclose(output.scores, [0.6], atol=1e-6)


def test_what_only_one_sees_is_weaker_and_the_limits_of_the_model_hold() -> None:
    first = raw([[10, 10, 20, 20], [40, 10, 50, 20], [70, 70, 80, 80]], [0.9, 0.5, 0.08])
    second = raw([[80, 10, 90, 20]], [0.6], [2])  # at the place of the first, of another class
    output = merged(first, second, 100, DESCRIPTION)
    assert isinstance(output, RawPrediction)
    np.testing.assert_allclose(output.scores, [0.45, 0.3, 0.25], atol=1e-6)  # 0.04 is below the threshold
    assert output.labels.tolist() == [1, 2, 1]
    limited = merged(first, second, 100, SimpleNamespace(**{**vars(DESCRIPTION), "detections_per_image": 1}))
    assert isinstance(limited, RawPrediction)
    assert len(limited.scores) == 1
    nothing = merged(raw([], []), raw([], []), 100, DESCRIPTION)
    assert isinstance(nothing, RawPrediction)
    assert nothing.boxes.shape == (0, 4)


def test_keypoints_change_sides_and_masks_are_mirrored() -> None:
    masks = np.zeros((1, 28, 28), np.float32)
    masks[:, :, :14] = 1
    points = np.float32([[[10, 15, 1], [20, 15, 1]]])
    first = RawPrediction(np.float32([[10, 10, 20, 20]]), np.array([1]), np.float32([0.5]), masks, points)
    seen = np.float32([[[80, 15, 1], [90, 15, 1]]])  # in the mirror image, left is left, too
    second = RawPrediction(np.float32([[80, 10, 90, 20]]), np.array([1]), np.float32([0.5]), masks[..., ::-1], seen)
    for swaps, expected in ((((0, 1),), [10, 20]), ((), [15, 15])):  # the second is the control
        description = SimpleNamespace(**{**vars(DESCRIPTION), "keypoints": SimpleNamespace(swaps=swaps)})
        output = merged(first, second, 100, description)
        assert isinstance(output, RawPrediction)
        assert output.mask_probs is not None
        assert output.keypoints is not None
        np.testing.assert_allclose(output.mask_probs, masks)
        np.testing.assert_allclose(output.keypoints[0, :, 0], expected)


def test_probabilities_are_averaged() -> None:
    one, two = (ClassPrediction(np.float32(values)) for values in ([0.8, 0.2], [0.4, 0.6]))
    output = merged(one, two, 8, DESCRIPTION)
    assert isinstance(output, ClassPrediction)
    np.testing.assert_allclose(output.probabilities, [0.6, 0.4], atol=1e-6)
    fields = merged(FieldPredictions({"a": one}), FieldPredictions({"a": two}), 8, DESCRIPTION)
    assert isinstance(fields, FieldPredictions)
    np.testing.assert_allclose(fields["a"].probabilities, [0.6, 0.4], atol=1e-6)


def test_the_mirror_image_is_contiguous() -> None:
    image = mirrored(IMAGE)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image[:, ::-1], IMAGE)
