"""Merge predictions of tiles. The predictions are those of a perfect model: the ground truth of each tile."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from detseg.errors import DataError
from detseg.masks import mask_to_rle, masks_to_boxes, rle_to_mask
from detseg.preprocess import Geometry, Preprocessing
from detseg.structures import Prediction
from detseg.tile_merge import merge_views
from detseg.tiling import Tiling

SIZE_HW = (150, 200)
TILE = 64
CORNER = (58, 57)
"""x, y of the middle of what four tiles of the grid have in common."""


def views(*, whole_image: bool = False) -> list[Geometry]:
    return Preprocessing(TILE, 107, tiling=Tiling(TILE, 0.2, whole_image)).views(SIZE_HW)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(mask, (x, y), radius, 1, -1)
    return mask


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def seen(
    masks: Sequence[np.ndarray], view: Geometry, labels: Sequence[int] | None = None, *, with_masks: bool = True
) -> Prediction:
    """What a perfect model predicts for a view; the first object has the highest score."""
    x1, y1, x2, y2 = (round(side) for side in view.window)
    parts, rows = [], []
    for row, mask in enumerate(masks):
        part = np.zeros_like(mask)
        part[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
        if part.any():
            parts.append(part)
            rows.append(row)
    return Prediction(
        SIZE_HW,
        masks_to_boxes(np.array(parts, np.uint8).reshape(-1, *SIZE_HW)),
        np.array([1 if labels is None else labels[row] for row in rows], np.int64),
        (0.9 - 0.1 * np.array(rows, np.float32)).astype(np.float32),
        [mask_to_rle(part) for part in parts] if with_masks else None,
    )


def merged(
    masks: Sequence[np.ndarray],
    labels: Sequence[int] | None = None,
    *,
    whole_image: bool = False,
    with_masks: bool = True,
) -> Prediction:
    parts = views(whole_image=whole_image)
    return merge_views(parts, [seen(masks, view, labels, with_masks=with_masks) for view in parts])


def assert_equals(prediction: Prediction, masks: Sequence[np.ndarray]) -> None:
    """One detection for each mask, in order, with its box and its pixels."""
    assert len(prediction) == len(masks)
    np.testing.assert_array_equal(prediction.boxes, masks_to_boxes(np.array(masks)))
    for rle, mask in zip(prediction.rles or [], masks, strict=prediction.rles is not None):
        np.testing.assert_array_equal(rle_to_mask(rle), mask)


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize(
    "mask",
    [
        disc(*CORNER, 5),  # whole in four tiles
        disc(*CORNER, 12),  # cut in all of them
        disc(*CORNER, 30),
        disc(100, 75, 70),  # over all tiles
        rectangle(3, 50, 197, 58),  # over all columns
        disc(20, 20, 10),  # in one tile
        disc(60, 20, 10),  # cut in one of two
        disc(2, 2, 12),  # cut by the image
        rectangle(0, 0, 200, 150),
    ],
)
def test_an_object_is_one_detection(mask: np.ndarray, with_masks: bool) -> None:
    assert_equals(merged([mask], with_masks=with_masks), [mask])


def test_control_without_merging_an_object_at_a_corner_is_four() -> None:
    mask = disc(*CORNER, 12)
    parts = [part for view in views() if len(part := seen([mask], view))]
    assert len(parts) == 4
    iou = [rle_to_mask(part.rles[0]).sum() / mask.sum() for part in parts if part.rles]
    assert max(iou) < 0.95


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        [rectangle(20, 30, 57, 50), rectangle(57, 30, 90, 50)],  # touch inside what two tiles have in common
        [rectangle(20, 30, 64, 50), rectangle(64, 30, 100, 50)],  # touch at a border
        [rectangle(30, 20, 50, 57), rectangle(30, 57, 50, 90)],
        [rectangle(20, 30, 110, 57), rectangle(20, 57, 110, 90)],  # one below the other, over several tiles
    ],
)
def test_neighbours_that_touch_are_two(masks: list[np.ndarray], with_masks: bool) -> None:
    assert_equals(merged(masks, with_masks=with_masks), masks)


def test_objects_with_overlapping_boxes_are_two_if_they_have_masks() -> None:
    square = rectangle(30, 30, 90, 90)
    upper = square * (np.indices(SIZE_HW)[1] - np.indices(SIZE_HW)[0] > 1)
    lower = square * (np.indices(SIZE_HW)[0] - np.indices(SIZE_HW)[1] > 1)
    assert_equals(merged([upper.astype(np.uint8), lower.astype(np.uint8)]), [upper, lower])


@pytest.mark.parametrize("with_masks", [True, False])
def test_classes_are_separate(with_masks: bool) -> None:
    mask = disc(*CORNER, 12)
    prediction = merged([mask, mask], [2, 1], with_masks=with_masks)
    assert_equals(prediction, [mask, mask])
    assert prediction.labels.tolist() == [2, 1]


def test_the_score_is_the_highest() -> None:
    mask, parts = disc(*CORNER, 12), []
    for number, view in enumerate(views()):
        part = seen([mask], view)
        parts.append(Prediction(SIZE_HW, part.boxes, part.labels, part.scores - np.float32(0.05 * number), part.rles))
    assert merge_views(views(), parts).scores == pytest.approx([0.9])


@pytest.mark.parametrize("with_masks", [True, False])
def test_the_whole_image_decides_on_objects_that_no_tile_shows_whole(with_masks: bool) -> None:
    small, large = disc(20, 20, 6), disc(120, 75, 60)
    parts, predictions = views(whole_image=True), []
    for view in parts[:-1]:
        predictions.append(seen([small], view, with_masks=with_masks))
    poor = rectangle(12, 14, 28, 26)  # the small object is coarse in the whole image
    predictions.append(seen([large, poor], parts[-1], with_masks=with_masks))
    prediction = merge_views(parts, predictions)
    assert_equals(prediction, [small, large] if prediction.scores[0] == prediction.scores[1] else [large, small])


def test_fragments_of_an_object_of_the_whole_image_are_not_counted_again() -> None:
    for with_masks in (True, False):
        assert_equals(merged([disc(100, 75, 60)], whole_image=True, with_masks=with_masks), [disc(100, 75, 60)])


def test_a_fragment_is_left_out_where_another_tile_shows_the_object_and_nothing_is_there() -> None:
    parts = views()
    predictions = [seen([], view) for view in parts]
    predictions[1] = seen([disc(46, 20, 10)], parts[1])  # cut on the left; the first tile shows all of it
    assert len(predictions[1]) == 1
    assert len(merge_views(parts, predictions)) == 0


def test_two_detections_of_one_tile_are_never_joined() -> None:
    parts = views()
    predictions = [seen([], view) for view in parts]
    predictions[0] = seen([disc(*CORNER, 12), disc(59, 57, 12)], parts[0])
    predictions[1] = seen([disc(*CORNER, 12)], parts[1])
    assert len(merge_views(parts, predictions)) == 2


def test_each_keypoint_is_that_of_the_tile_that_is_most_certain() -> None:
    mask, parts, predictions = disc(*CORNER, 30), views(), []
    for number, view in enumerate(parts):
        part = seen([mask], view)
        points = np.zeros((len(part), 2, 3), np.float32)
        points[:] = [[number, number, number], [number, number, -number]]
        predictions.append(Prediction(SIZE_HW, part.boxes, part.labels, part.scores, None, points))
    cut = [number for number, part in enumerate(predictions) if len(part)]
    (points,) = merge_views(parts, predictions).keypoints  # type: ignore[misc]
    assert points[:, 0].tolist() == [max(cut), min(cut)]


@pytest.mark.parametrize("with_masks", [True, False])
def test_without_detections_all_shapes_stay(with_masks: bool) -> None:
    prediction = merged([], with_masks=with_masks)
    assert prediction.boxes.shape == (0, 4)
    assert prediction.labels.dtype == np.int64
    assert prediction.rles == ([] if with_masks else None)


def test_every_view_needs_its_prediction() -> None:
    with pytest.raises(DataError, match="12 views of an image but 1"):
        merge_views(views(), [seen([], views()[0])])


def test_random_objects_are_found_once() -> None:
    """Discs that do not overlap, of all sizes, anywhere: the result is the ground truth."""
    rng, parts = np.random.default_rng(0), views()
    for _ in range(20):
        taken, masks = np.zeros(SIZE_HW, np.uint8), []
        for _ in range(25):
            mask = disc(int(rng.integers(0, 200)), int(rng.integers(0, 150)), int(rng.integers(2, 40)))
            if not (mask & taken).any():
                taken |= mask
                masks.append(mask)
        prediction = merge_views(parts, [seen(masks[:8], view) for view in parts])
        assert_equals(prediction, masks[:8])
