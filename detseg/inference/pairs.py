"""Find the detections that are one object in two outputs for the same image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.boxes import xyxy_to_xywh

MATCH_IOU = 0.5
"""Lowest IoU of two boxes that are taken for one object."""


class Detections(Protocol):
    """A ``Prediction`` or ``RawPrediction``."""

    @property
    def boxes(self) -> npt.NDArray[Any]: ...
    @property
    def labels(self) -> npt.NDArray[Any]: ...


def matched_pairs(first: Detections, second: Detections) -> list[tuple[int, int]]:
    """Detections of one class at one place in both, each at most once; those with the highest IoU first."""
    if not (len(first.labels) and len(second.labels)):
        return []
    boxes = [xyxy_to_xywh(prediction.boxes.astype(np.float64)) for prediction in (first, second)]
    for sides in boxes:
        sides[:, 2:] = sides[:, 2:].clip(min=1)  # without an area, as at the edge of an image, boxes have no IoU
    iou = np.asarray(coco_mask.iou(boxes[0], boxes[1], [0] * len(boxes[1])))
    iou = np.where(first.labels[:, None] == second.labels[None], iou, 0)
    used: Sequence[set[int]] = (set(), set())
    pairs = []
    for flat in np.argsort(-iou, axis=None, kind="stable"):
        i, j = divmod(int(flat), iou.shape[1])
        if iou[i, j] < MATCH_IOU:
            break
        if i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
            pairs.append((i, j))
    return pairs
