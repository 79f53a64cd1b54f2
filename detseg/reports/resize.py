"""Resize what is drawn on an image together with the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.boxes import scale_xyxy
from detseg.masks import rle_to_mask
from detseg.postprocess import mask_to_box_rle
from detseg.structures import Prediction


def resized_prediction(prediction: Prediction, size_hw: tuple[int, int]) -> Prediction:
    """Return the prediction for the same image at another size."""
    keypoints = prediction.keypoints
    return replace(
        prediction,
        size_hw=size_hw,
        boxes=scale_xyxy(prediction.boxes, prediction.size_hw, size_hw),
        rles=None
        if prediction.rles is None
        else [mask_to_box_rle(_resized(rle_to_mask(rle), size_hw) > 0) for rle in prediction.rles],
        keypoints=None if keypoints is None else _scaled(keypoints, prediction.size_hw, size_hw),
    )


def resized_target(
    target: Mapping[str, Any], from_hw: tuple[int, int], size_hw: tuple[int, int]
) -> dict[str, npt.NDArray[Any]]:
    """Return boxes, labels, masks and keypoints of a target (arrays or tensors) for its image at another size."""
    values = {
        name: np.asarray(target[name]) for name in ("boxes", "labels", "masks", "keypoints", "scores") if name in target
    }
    values["boxes"] = scale_xyxy(values["boxes"].reshape(-1, 4), from_hw, size_hw)
    if "masks" in values:
        masks = [_resized(mask, size_hw) for mask in values["masks"]]
        values["masks"] = np.stack(masks) if masks else np.zeros((0, *size_hw), np.uint8)
    if "keypoints" in values:
        values["keypoints"] = _scaled(values["keypoints"], from_hw, size_hw)
    return values


def _resized(mask: npt.NDArray[Any], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    resized = cv2.resize(mask.astype(np.uint8), size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(resized, np.uint8)


def _scaled(keypoints: npt.NDArray[Any], from_hw: tuple[int, int], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    factor = np.array([size_hw[1] / from_hw[1], size_hw[0] / from_hw[0], 1.0], np.float32)
    return (keypoints * factor).astype(np.float32)
