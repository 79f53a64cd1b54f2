"""Compare the predictions of two programs that run the same network: the worst differences, and the tolerances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.inference.pairs import matched_pairs
from detseg.short_text import counted
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

BOX_TOLERANCE = 0.02
"""Pixels of the original image; also for keypoints."""
SCORE_TOLERANCE = 2e-4
MASK_TOLERANCE = 0.99
"""Lowest IoU of two masks of one detection."""
TIE = 1e-5
"""Detections whose scores differ by less can change places, and one can suppress the other, without any error."""
KEYPOINT_SHARE = 95
"""Percentile of the distances of keypoints: a few may move, where two pixels of a heatmap are equal."""


@dataclass(frozen=True)
class Agreement:
    """How two lists of predictions differ.

    Attributes:
        compared: number of detections, or of images of a classifier, that were matched and compared.
        ties: detections that were left out, because their order is not defined (see ``TIE``).
        unmatched: detections without one of the same class and place in the other list.
        boxes: largest difference of a coordinate in pixels of the original image.
        scores: largest difference of a score or probability.
        mask_iou: lowest IoU of masks.
        keypoints: distance of keypoints in pixels that 95 % of them do not exceed in any image.
        worst: name of the image with the first problem; empty without one.
    """

    compared: int = 0
    ties: int = 0
    unmatched: int = 0
    boxes: float = 0.0
    scores: float = 0.0
    mask_iou: float = 1.0
    keypoints: float = 0.0
    worst: str = ""

    @property
    def is_within_tolerance(self) -> bool:
        """Whether nothing is unmatched or differs by more than the tolerances."""
        return (
            not self.unmatched
            and max(self.boxes, self.keypoints) <= BOX_TOLERANCE
            and self.scores <= SCORE_TOLERANCE
            and self.mask_iou >= MASK_TOLERANCE
        )

    def __add__(self, other: Agreement) -> Agreement:
        """The sum of counts and the worst of the differences of two comparisons."""
        return Agreement(
            self.compared + other.compared,
            self.ties + other.ties,
            self.unmatched + other.unmatched,
            max(self.boxes, other.boxes),
            max(self.scores, other.scores),
            min(self.mask_iou, other.mask_iou),
            max(self.keypoints, other.keypoints),
            self.worst or other.worst,
        )

    def line(self, task: str) -> str:
        """The worst differences in one line, for a model of ``task``."""
        if task == "classify":
            return f"{counted(self.compared, 'image')}; largest difference of a probability {self.scores:.2g}"
        text = f"{counted(self.compared, 'detection')}; largest differences: boxes {self.boxes:.2g} px"
        text += f", scores {self.scores:.2g}"
        text += f", lowest IoU of masks {self.mask_iou:.5f}" if task == "segment" else ""
        text += f", keypoints {self.keypoints:.2g} px" if task == "keypoints" else ""
        text += f"; {self.unmatched} without a match" if self.unmatched else ""
        return text + (f"; left out for equal scores: {self.ties}" if self.ties else "")


AnyPrediction = Prediction | ClassPrediction | FieldPredictions


def compare(first: AnyPrediction, second: AnyPrediction, name: str, description: Any) -> Agreement:
    """How two predictions for the image ``name`` differ.

    Args:
        description: of the network, for its score threshold and its maximum number of detections.
    """
    if isinstance(first, Prediction) and isinstance(second, Prediction):
        result = _compare_detections(first, second, description)
    else:
        probabilities = [np.concatenate(_probabilities(prediction)) for prediction in (first, second)]
        if probabilities[0].shape == probabilities[1].shape:
            result = Agreement(1, scores=float(np.abs(probabilities[0] - probabilities[1]).max()))
        else:
            result = Agreement(unmatched=1)
    return result if result.is_within_tolerance else result + Agreement(worst=name)


def _probabilities(prediction: AnyPrediction) -> list[npt.NDArray[np.float32]]:
    if isinstance(prediction, FieldPredictions):
        return [part.probabilities for part in prediction.fields.values()]
    return [prediction.probabilities] if isinstance(prediction, ClassPrediction) else [prediction.scores]


def _compare_detections(first: Prediction, second: Prediction, description: Any) -> Agreement:
    tied = [_tied(prediction.scores, description) for prediction in (first, second)]
    pairs = matched_pairs(first, second)
    matched = [{pair[side] for pair in pairs} for side in (0, 1)]
    alone = sum(
        index not in matched[side] and not tied[side][index] for side in (0, 1) for index in range(len(tied[side]))
    )
    compared = [(i, j) for i, j in pairs if not (tied[0][i] or tied[1][j])]
    ties = int(sum(map(np.sum, tied)))
    if not compared:
        return Agreement(ties=ties, unmatched=alone)
    i, j = (list(side) for side in zip(*compared, strict=True))
    ious = [1.0]
    if first.rles is not None and second.rles is not None:
        ious = [_mask_iou(first.rles[a], second.rles[b]) for a, b in compared]
    distance = 0.0
    if first.keypoints is not None and second.keypoints is not None:
        moved = first.keypoints[i][..., :2] - second.keypoints[j][..., :2]
        distance = float(np.percentile(np.hypot(moved[..., 0], moved[..., 1]), KEYPOINT_SHARE, method="lower"))
    return Agreement(
        len(compared),
        ties,
        alone,
        float(np.abs(first.boxes[i] - second.boxes[j]).max()),
        float(np.abs(first.scores[i] - second.scores[j]).max()),
        min(ious),
        distance,
    )


def _tied(scores: npt.NDArray[np.float32], description: Any) -> npt.NDArray[np.bool_]:
    """Detections whose neighbour in the order of scores (descending) is as good, or that are as good as one cut off."""
    close = -np.diff(scores.astype(np.float64)) < TIE
    tied = np.append(close, False) | np.insert(close, 0, False) if len(scores) else np.zeros(0, np.bool_)
    tied |= scores - description.score_threshold < TIE
    if len(scores) >= description.detections_per_image:
        tied |= scores - scores[-1] < TIE
    return tied


def _mask_iou(first: Any, second: Any) -> float:
    """IoU of two masks; 1 if both are empty."""
    union = coco_mask.area(coco_mask.merge([first, second]))
    return float(coco_mask.area(coco_mask.merge([first, second], intersect=True)) / union) if union else 1.0
