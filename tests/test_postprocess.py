"""Conversion of network outputs to original pixels; masks pasted and encoded inside their boxes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.transform import resize_boxes

from detseg.errors import DataError
from detseg.models.ops.mask_targets import mask_targets
from detseg.orientation import orient_boxes, orient_rle
from detseg.postprocess import crop_rle, finish, mask_to_box_rle, paste_masks, to_stored_frame
from detseg.preprocess import Geometry
from detseg.structures import RLE, Prediction, RawPrediction


def raw_prediction(
    boxes: list[list[float]], scores: list[float], *, masks: bool = False, points: int = 0
) -> RawPrediction:
    count = len(boxes)
    return RawPrediction(
        np.array(boxes, np.float32).reshape(count, 4),
        np.arange(1, count + 1, dtype=np.int64),
        np.array(scores, np.float32),
        np.full((count, 28, 28), 0.9, np.float32) if masks else None,
        np.ones((count, points, 3), np.float32) if points else None,
    )


def random_masks(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Blobs in [0, 1] and boxes, some of them wider than the image, some without area."""
    height, width = size_hw
    coarse = torch.from_numpy(rng.random((count, 1, 5, 5), np.float32))
    probs = torch.nn.functional.interpolate(coarse, (28, 28), mode="bicubic")[:, 0].clamp(0, 1).numpy()
    corners = rng.uniform(-0.1, 1.1, (count, 2, 2)) * [width, height]
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    boxes[::7, 2:] = boxes[::7, :2]
    return probs, boxes.clip(0, [width, height] * 2).astype(np.float32)


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [([], []), ([[1, 2, 5, 8]], [0.5]), ([[1, 2, 5, 8], [0, 0, 20, 10], [3, 3, 4, 4]], [0.2, 0.9, 0.2])],
)
def test_finish_keeps_shapes_and_sorts_by_score(boxes: list[list[float]], scores: list[float]) -> None:
    prediction = finish(raw_prediction(boxes, scores, masks=True, points=3), Geometry((40, 60), (20, 30)))
    assert prediction.size_hw == (40, 60)
    assert (prediction.boxes.shape, prediction.boxes.dtype) == ((len(boxes), 4), np.float32)
    assert (prediction.labels.shape, prediction.labels.dtype) == ((len(boxes),), np.int64)
    assert (prediction.scores.shape, prediction.scores.dtype) == ((len(boxes),), np.float32)
    assert prediction.keypoints is not None
    assert prediction.keypoints.shape == (len(boxes), 3, 3)
    assert prediction.masks().shape == (len(boxes), 40, 60)
    assert (np.diff(prediction.scores) <= 0).all()


def test_equal_scores_keep_their_order() -> None:
    prediction = finish(raw_prediction([[0, 0, 1, 1]] * 4, [0.5, 0.7, 0.5, 0.5]), Geometry((10, 10), (10, 10)))
    assert prediction.labels.tolist() == [2, 1, 3, 4]
    assert prediction.rles is None


def test_boxes_in_original_pixels_equal_torchvision_and_are_clipped() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 300, (50, 2, 2)), axis=1).reshape(50, 4).astype(np.float32)
    raw = raw_prediction(boxes.tolist(), [0.5] * 50)
    boxes_in_original = finish(raw, Geometry((417, 631), (300, 301))).boxes
    expected = resize_boxes(torch.from_numpy(boxes), [300, 301], [417, 631])
    np.testing.assert_array_equal(boxes_in_original, expected.clamp(max=torch.tensor([631, 417, 631, 417])).numpy())
    outside = finish(raw_prediction([[-5, -5, 50, 70]], [1.0]), Geometry((80, 90), (40, 45))).boxes
    np.testing.assert_array_equal(outside, [[0, 0, 90, 80]])


def test_crop_offset_and_keypoints() -> None:
    raw = RawPrediction(
        np.array([[0, 0, 10, 10]], np.float32),
        np.array([1]),
        np.array([1], np.float32),
        keypoints=np.array([[[1, 2, 0.25]]], np.float32),
    )
    prediction = finish(raw, Geometry((80, 120), (40, 60), crop_yx=(4, 14), crop_hw=(32, 32)))
    np.testing.assert_array_equal(prediction.boxes, [[28, 8, 48, 28]])
    np.testing.assert_array_equal(prediction.keypoints, [[[30, 12, 0.25]]])


def sampled(probs: np.ndarray, boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Reference: each mask sampled at every pixel of the image, in float64 [M, H, W]."""
    height, width = size_hw
    rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    soft = []
    for mask, (x1, y1, x2, y2) in zip(torch.from_numpy(probs).double(), boxes.astype(np.float64).tolist(), strict=True):
        grid = torch.stack([2 * (columns - x1) / max(x2 - x1, 1) - 1, 2 * (rows - y1) / max(y2 - y1, 1) - 1], dim=2)
        values = torch.nn.functional.grid_sample(
            mask[None, None], grid[None], padding_mode="border", align_corners=False
        )[0, 0]
        soft.append(values * (grid.abs() < 1).all(dim=2))
    return torch.stack(soft).numpy()


def test_pasting_equals_sampling_inside_the_box() -> None:
    """Full-size soft masks need 341 MB; paste_masks never builds them and differs only by ties at the threshold."""
    rng = np.random.default_rng(1)
    different = 0
    for size_hw in ((1, 1), (37, 53), (200, 121), (240, 320)):
        probs, boxes = random_masks(rng, 30, size_hw)
        full = sampled(probs, boxes, size_hw) > 0.5
        pasted = coco_mask.decode(paste_masks(probs, boxes, size_hw)).transpose(2, 0, 1).astype(bool)
        different += int((pasted != full).sum())
        assert full.any() or size_hw == (1, 1)
    assert different <= 3
    assert paste_masks(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 5)) == []


def ellipses(rng: np.random.Generator, count: int, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks uint8 [N, H, W] of rotated ellipses, and boxes slightly shifted from them."""
    masks = np.zeros((count, *size_hw), np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    for mask, box in zip(masks, boxes, strict=True):
        centre = rng.uniform([40, 40], [size_hw[1] - 40, size_hw[0] - 40])
        axes = rng.uniform([10, 3], [30, 10])
        points = cv2.ellipse2Poly((0, 0), (100, 100), 0, 0, 360, 5) / 100 * axes
        angle = rng.uniform(0, np.pi)
        rotated = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + centre
        cv2.fillPoly(mask, [np.round(rotated * 16).astype(np.int32)], 1, shift=4)
        ys, xs = np.nonzero(mask)
        box[:] = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) + rng.uniform(-1.5, 1.5, 4)
    return masks, boxes


def mean_iou(rles: list[RLE], masks: np.ndarray) -> float:
    ground_truth = [mask_to_box_rle(mask.astype(bool)) for mask in masks]
    pairs = zip(rles, ground_truth, strict=True)
    return float(np.mean([coco_mask.iou([rle], [gt_rle], [0])[0, 0] for rle, gt_rle in pairs]))


@pytest.mark.parametrize(("scale", "min_iou"), [(1, 0.96), (2, 0.93), (4, 0.85)])
def test_pasting_training_targets_restores_the_masks(scale: int, min_iou: float) -> None:
    """Training targets at the network's size are pasted at the original size, with a higher IoU than torchvision's."""
    rng = np.random.default_rng(2)
    masks, boxes = ellipses(rng, 60, (240, 320))
    small = masks.reshape(60, 240 // scale, scale, 320 // scale, scale).mean(axis=(2, 4)).astype(np.float32)
    probs = mask_targets(torch.from_numpy(small), torch.from_numpy(boxes / scale), torch.arange(60), 28).numpy()
    iou = mean_iou(paste_masks(probs, boxes, (240, 320), (scale, scale)), masks)
    pasted = paste_masks_in_image(torch.from_numpy(probs)[:, None], torch.from_numpy(boxes), (240, 320))[:, 0] > 0.5
    torchvision_iou = mean_iou([mask_to_box_rle(mask) for mask in pasted.numpy()], masks)
    assert iou > min_iou
    assert torchvision_iou < iou - 0.05
    without_scale = mean_iou(paste_masks(probs, boxes, (240, 320)), masks)
    assert without_scale == iou if scale == 1 else without_scale < iou - 0.03


def crop_cases() -> list[tuple[tuple[int, int], tuple[int, int, int, int], float]]:
    """(image size, crop's top, left, bottom, right, fraction of ones)."""
    return [
        ((5, 7), (0, 0, 0, 0), 0.0),  # nothing
        ((5, 7), (2, 3, 3, 4), 1.0),  # one pixel
        ((5, 7), (0, 0, 5, 7), 1.0),  # everything: one run over all columns
        ((5, 7), (0, 0, 5, 7), 0.0),
        ((5, 7), (0, 2, 5, 4), 1.0),  # full height: runs join across column ends
        ((5, 7), (4, 6, 5, 7), 1.0),  # last pixel: no trailing zero run
        ((5, 7), (0, 0, 1, 1), 1.0),  # first pixel: leading zero run of length 0
        ((1, 9), (0, 2, 1, 9), 0.5),
        ((9, 1), (3, 0, 9, 1), 0.5),
        ((300, 400), (3, 250, 300, 400), 0.5),  # runs longer than one character of the compressed format
    ]


@pytest.mark.parametrize(("size_hw", "box", "share"), crop_cases())
def test_crop_rle_equals_pycocotools_encode_bit_for_bit(
    size_hw: tuple[int, int], box: tuple[int, int, int, int], share: float
) -> None:
    rng = np.random.default_rng(2)
    top, left, bottom, right = box
    for _ in range(5):
        crop = rng.random((bottom - top, right - left)) < share
        full = np.zeros(size_hw, np.uint8, order="F")
        full[top:bottom, left:right] = crop
        assert crop_rle(crop, top, left, size_hw) == coco_mask.encode(full)


def test_random_crops_and_whole_masks() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(1, 20, 2))
        top, left = int(rng.integers(height)), int(rng.integers(width))
        crop = rng.random((int(rng.integers(0, height - top + 1)), int(rng.integers(0, width - left + 1))))
        crop = crop < rng.choice([0.1, 0.5, 0.95, 1.0])
        full = np.zeros((height, width), np.uint8, order="F")
        full[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
        assert crop_rle(crop, top, left, (height, width)) == coco_mask.encode(full)
        assert mask_to_box_rle(full.astype(bool)) == coco_mask.encode(full)


@pytest.mark.parametrize("name", ["boxes", "scores", "mask_probs", "keypoints"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_numbers_are_rejected(name: str, value: float) -> None:
    raw = raw_prediction([[0, 0, 5, 5]], [0.5], masks=True, points=2)
    getattr(raw, name).flat[-1] = value
    with pytest.raises(DataError, match=name):
        finish(raw, Geometry((10, 10), (10, 10)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 3])
def test_conversion_to_stored_pixels_undoes_the_orientation(orientation: int, count: int) -> None:
    rng = np.random.default_rng(orientation)
    stored_hw = (12, 20)
    stored_xywh = np.concatenate([rng.integers(0, 6, (count, 2)), rng.integers(1, 6, (count, 2))], 1).astype(float)
    masks = np.zeros((count, *stored_hw), np.uint8)
    for mask, (x, y, w, h) in zip(masks, stored_xywh.astype(int), strict=True):
        mask[y : y + h, x : x + w] = rng.integers(0, 2, (h, w))
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    upright = orient_boxes(stored_xywh, stored_hw, orientation)
    prediction = Prediction(
        stored_hw if orientation < 5 else stored_hw[::-1],
        np.concatenate([upright[:, :2], upright[:, :2] + upright[:, 2:]], 1).astype(np.float32),
        np.ones(count, np.int64),
        np.ones(count, np.float32),
        [orient_rle(rle, orientation) for rle in rles],
        np.zeros((count, 1, 3), np.float32),
    )
    stored = to_stored_frame(prediction, stored_hw, orientation)
    assert stored.size_hw == stored_hw
    np.testing.assert_array_equal(stored.boxes[:, 2:] - stored.boxes[:, :2], stored_xywh[:, 2:])
    np.testing.assert_array_equal(stored.boxes[:, :2], stored_xywh[:, :2])
    np.testing.assert_array_equal(stored.masks(), masks)
    assert stored.keypoints is not None
    assert stored.keypoints.shape == (count, 1, 3)
