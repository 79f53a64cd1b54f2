"""Match the predicted boxes of one image with its objects: hits, misses, false alarms, and confused classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

FALSE_ALARM, NOT_COUNTED = -1, -2


@dataclass(frozen=True)
class ObjectMatches:
    """Which prediction is which object.

    Attributes:
        object_of: int64 [M]: for each prediction the index of its object of the same class, ``FALSE_ALARM``, or
            ``NOT_COUNTED`` if it is on a crowd or an ignored object.
        is_missed: bool [N]: objects without a prediction, that count.
        confusion: int64 [K + 1, K + 1]: row = class of the object, column = predicted class; the last of each is the
            background. Predictions and objects that match no other of their class are compared across classes.
    """

    object_of: Int64
    is_missed: npt.NDArray[np.bool_]
    confusion: Int64

    @property
    def is_false_alarm(self) -> npt.NDArray[np.bool_]:
        """bool [M]."""
        return self.object_of == FALSE_ALARM

    @property
    def mistakes(self) -> int:
        """Number of misses and false alarms."""
        return int(self.is_missed.sum() + self.is_false_alarm.sum())


def match_objects(
    gt_boxes: npt.NDArray[Any],
    gt_labels: Int64,
    boxes: npt.NDArray[Any],
    labels: Int64,
    *,
    num_labels: int,
    not_counted: npt.NDArray[np.bool_] | None = None,
    iou: float = 0.5,
) -> ObjectMatches:
    """Match by class and overlap as COCO does: the predictions choose in order, each the free object it overlaps most.

    Args:
        gt_boxes: [N, 4] xyxy.
        gt_labels: int64 [N], 1..K.
        boxes: [M, 4] xyxy, by descending score.
        labels: int64 [M], 1..K.
        num_labels: K.
        not_counted: bool [N], objects that may be predicted or not: crowds, ignored and difficult ones.
        iou: least overlap, in [0, 1].
    """
    uncounted = np.zeros(len(gt_labels), bool) if not_counted is None else not_counted
    overlap, inside = _overlaps(np.asarray(boxes, np.float64), np.asarray(gt_boxes, np.float64))
    same_class = labels[:, None] == gt_labels[None]
    object_of = _assign(np.where(same_class & ~uncounted, overlap, -1.0), iou)
    excused = (np.where(same_class & uncounted, np.maximum(overlap, inside), -1.0) >= iou).any(axis=1)
    object_of[(object_of == FALSE_ALARM) & excused] = NOT_COUNTED
    is_missed = ~uncounted
    is_missed[object_of[object_of >= 0]] = False
    return ObjectMatches(
        object_of, is_missed, _confusion(overlap, gt_labels, labels, object_of, is_missed, num_labels, iou)
    )


def _confusion(
    overlap: npt.NDArray[np.float64],
    gt_labels: Int64,
    labels: Int64,
    object_of: Int64,
    is_missed: npt.NDArray[np.bool_],
    num_labels: int,
    iou: float,
) -> Int64:
    confusion = np.zeros((num_labels + 1, num_labels + 1), np.int64)
    hits = labels[object_of >= 0] - 1
    np.add.at(confusion, (hits, hits), 1)
    free = (object_of == FALSE_ALARM)[:, None] & is_missed[None]
    other = _assign(np.where(free, overlap, -1.0), iou)
    confused = np.flatnonzero(other >= 0)
    np.add.at(confusion, (gt_labels[other[confused]] - 1, labels[confused] - 1), 1)
    alone = (object_of == FALSE_ALARM) & (other < 0)
    np.add.at(confusion[num_labels], labels[alone] - 1, 1)
    unseen = is_missed.copy()
    unseen[other[confused]] = False
    np.add.at(confusion[:, num_labels], gt_labels[unseen] - 1, 1)
    return confusion


def _assign(overlap: npt.NDArray[np.float64], iou: float) -> Int64:
    """Return for each row, in order, the free column with the largest overlap of at least ``iou``, else -1."""
    free, chosen = overlap.copy(), np.full(len(overlap), FALSE_ALARM, np.int64)
    for row in range(len(overlap) if overlap.shape[1] else 0):
        column = int(free[row].argmax())
        if free[row, column] >= iou:
            chosen[row] = column
            free[:, column] = -1.0
    return chosen


def _overlaps(
    boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return float64 [M, N]: IoU, and the share of the first box that is inside the second."""
    boxes, others = boxes.reshape(-1, 4), others.reshape(-1, 4)
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas, other_areas = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    return shared / np.maximum(union, 1e-12), shared / np.maximum(areas[:, None], 1e-12)
