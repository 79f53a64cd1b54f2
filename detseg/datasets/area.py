"""Compute the areas of masks."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt


def mask_areas(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """uint8 [N, H, W] -> float32 [N]: number of non-zero pixels. Looping is many times faster than a sum over axes."""
    return np.array([cv2.countNonZero(mask) for mask in masks], np.float32)
