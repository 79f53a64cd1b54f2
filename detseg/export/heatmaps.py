"""Decode the heatmaps of a keypoint head, as torchvision does in the network. No torch."""

from __future__ import annotations

import cv2
import numpy as np

from detseg.structures import Float32


def decode_heatmaps(heatmaps: Float32, boxes: Float32) -> Float32:
    """Keypoints float32 [M, P, 3] in pixels of the boxes: x, y and score in [0, 1].

    torchvision's ``heatmaps_to_keypoints``: each heatmap is enlarged to the size of its box (bicubic, with the same
    kernel in OpenCV), and the point is the centre of the pixel with the highest logit; the score is its sigmoid.

    Args:
        heatmaps: float32 [M, P, S, S], logits.
        boxes: float32 [M, 4] xyxy.
    """
    count, points = heatmaps.shape[:2]
    keypoints = np.zeros((count, points, 3), np.float32)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1))  # width, height
    for i, (width, height) in enumerate(np.ceil(sides).astype(int).tolist()):
        pixel = sides[i] / np.array([width, height], np.float32)  # of the box, in pixels of the enlarged heatmap
        for point in range(points):
            enlarged = cv2.resize(heatmaps[i, point], (width, height), interpolation=cv2.INTER_CUBIC)
            y, x = divmod(int(enlarged.argmax()), width)
            keypoints[i, point, :2] = (np.array([x, y], np.float32) + np.float32(0.5)) * pixel + boxes[i, :2]
            keypoints[i, point, 2] = enlarged[y, x]
    with np.errstate(over="ignore"):
        keypoints[..., 2] = 1 / (1 + np.exp(-keypoints[..., 2]))
    return keypoints
