"""A precision-recall curve of one class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RECALLS = np.linspace(0, 1, 101)
"""COCO's recall thresholds."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PrCurve:
    """Precision at each of COCO's recall thresholds.

    Attributes:
        kind: "bbox", "segm" or "keypoints" for detections, "class" for a classifier.
        iou: the overlap (for keypoints OKS) from which a detection is correct; 0 for a classifier.
        class_name: of the objects or images.
        precision: float64 [101] in [0, 1]: the highest precision at a recall of at least ``RECALLS``; 0 where that
            recall is not reached. Its mean is the AP of the class at this IoU.
        scores: float64 [101] in [0, 1]: the lowest score that is needed for that recall; 0 where it is not reached.
        positives: number of objects (or images) of the class in the ground truth.
    """

    kind: str
    iou: float
    class_name: str
    precision: Float64
    scores: Float64
    positives: int

    @property
    def ap(self) -> float:
        """Average precision: the mean over the recall thresholds."""
        return float(self.precision.mean())

    @property
    def title(self) -> str:
        """What is correct: ``box, IoU 0.50``."""
        if self.kind == "class":
            return "class against all others"
        name = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}[self.kind]
        return f"{name}, {'OKS' if self.kind == 'keypoints' else 'IoU'} {self.iou:.2f}"


def curve_of_scores(class_name: str, scores: Float64, is_positive: npt.NDArray[np.bool_]) -> PrCurve:
    """Return the curve of a classifier for one class against all others.

    Args:
        scores: [N], probability of the class for each image.
        is_positive: bool [N], whether the image is of the class; at least one is.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_positive[order])
    positives = int(is_positive.sum())
    envelope = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    first = np.searchsorted(hits / positives, RECALLS, side="left")
    return PrCurve("class", 0.0, class_name, envelope[first], scores[order][first].astype(np.float64), positives)
