"""Convert, clip and scale boxes (numpy). ``xyxy`` is half-open in pixels: the whole image is [0, 0, W, H]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]


def xywh_to_xyxy(boxes: FloatArray) -> FloatArray:
    """[..., 4] x, y, width, height -> x1, y1, x2, y2; same dtype."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: FloatArray) -> FloatArray:
    """[..., 4] x1, y1, x2, y2 -> x, y, width, height; same dtype."""
    boxes = np.asarray(boxes)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def clip_xyxy(boxes: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """[..., 4] xyxy boxes clipped to an image of ``size_hw``; a box outside becomes empty, not negative."""
    height, width = size_hw
    limits = np.array([width, height, width, height], dtype=np.asarray(boxes).dtype)
    return np.clip(boxes, 0, limits)


def scale_xyxy(boxes: FloatArray, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> FloatArray:
    """[..., 4] xyxy boxes of an image of size ``from_hw``, scaled to the same image at size ``to_hw``; same dtype."""
    (from_h, from_w), (to_h, to_w) = from_hw, to_hw
    factor = np.array([to_w / from_w, to_h / from_h] * 2)
    return (np.asarray(boxes) * factor).astype(np.asarray(boxes).dtype, copy=False)
