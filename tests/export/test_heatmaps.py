"""Heatmaps are decoded as torchvision decodes them."""

from __future__ import annotations

import numpy as np
import torch
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints

from detseg.export.heatmaps import decode_heatmaps


def test_equal_to_torchvision() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 200, (12, 2))
    sides = generator.uniform(0.2, 300, (12, 2))
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    boxes[0, 2:] = boxes[0, :2]  # without an area
    heatmaps = generator.normal(0, 4, (12, 5, 56, 56)).astype(np.float32)
    points, scores = heatmaps_to_keypoints(torch.from_numpy(heatmaps), torch.from_numpy(boxes))
    expected = torch.cat([points[..., :2], scores.sigmoid()[..., None]], dim=2).numpy()
    decoded = decode_heatmaps(heatmaps, boxes)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, atol=2e-4)
    moved = decode_heatmaps(heatmaps[..., ::-1].copy(), boxes)
    assert np.abs(moved - expected)[1:, :, 0].max() > 1, "control"


def test_no_boxes() -> None:
    empty = decode_heatmaps(np.zeros((0, 5, 56, 56), np.float32), np.zeros((0, 4), np.float32))
    assert empty.shape == (0, 5, 3)
