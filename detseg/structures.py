"""Predictions: raw network outputs and results in original pixels. Numpy arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.short_text import counted, listed

RLE = dict[str, Any]
"""COCO's compressed run-length encoding: ``{"size": [H, W], "counts": bytes}``."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RawPrediction:
    """A detector's output for one image, in network pixels (before padding), highest score first.

    Attributes:
        boxes: float32 [M, 4] xyxy.
        labels: int64 [M], 1..K.
        scores: float32 [M] in [0, 1], descending.
        mask_probs: float32 [M, 28, 28] in [0, 1], the mask inside each box; None without a mask head.
        keypoints: float32 [M, P, 3] x, y, score; None without a keypoint head.
    """

    boxes: Float32
    labels: Int64
    scores: Float32
    mask_probs: Float32 | None = None
    keypoints: Float32 | None = None

    def __repr__(self) -> str:
        return f"RawPrediction({_contents(self.scores, self.mask_probs, self.keypoints)})"


@dataclass(frozen=True)
class ObjectClass:
    """What a chained classifier says about one detection.

    Attributes:
        class_name: the most probable class.
        probability: of this class, in [0, 1].
        field: the label field of a classifier with several; else "".
    """

    class_name: str
    probability: float
    field: str = ""

    def __str__(self) -> str:
        name = f"{self.field}={self.class_name}" if self.field else self.class_name
        return f"{name} {self.probability:.2f}"


@dataclass(frozen=True)
class Prediction:
    """Detections of one image, in original (upright) pixels, highest score first.

    Attributes:
        size_hw: height and width of the upright original image.
        boxes: float32 [M, 4] xyxy.
        labels: int64 [M], 1..K.
        scores: float32 [M] in [0, 1], descending.
        rles: M COCO RLEs of the whole image; None without a mask head.
        keypoints: float32 [M, P, 3] x, y, score; None without a keypoint head.
        object_classes: of a chained classifier: M lists of classes, one per label field of it; None without one.
    """

    size_hw: tuple[int, int]
    boxes: Float32
    labels: Int64
    scores: Float32
    rles: list[RLE] | None = None
    keypoints: Float32 | None = None
    object_classes: list[list[ObjectClass]] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        size = f"image of {self.size_hw[1]} x {self.size_hw[0]} pixels"
        return f"Prediction({_contents(self.scores, self.rles, self.keypoints)}; {size})"

    def masks(self) -> npt.NDArray[np.uint8]:
        """uint8 [M, H, W] in {0, 1}; zeros if there is no mask head. Allocates M * H * W bytes."""
        from pycocotools import mask as coco_mask

        if not self.rles:
            return np.zeros((len(self), *self.size_hw), np.uint8)
        return np.ascontiguousarray(coco_mask.decode(self.rles).transpose(2, 0, 1))

    def above(self, score: float) -> Prediction:
        """The detections with a score of at least ``score``."""
        keep = np.flatnonzero(self.scores >= score)
        return Prediction(
            self.size_hw,
            self.boxes[keep],
            self.labels[keep],
            self.scores[keep],
            None if self.rles is None else [self.rles[i] for i in keep],
            None if self.keypoints is None else self.keypoints[keep],
            None if self.object_classes is None else [self.object_classes[i] for i in keep],
        )


@dataclass(frozen=True)
class ClassPrediction:
    """A classifier's output for one image.

    Attributes:
        probabilities: float32 [K], sums to 1; position i is class_index i.
    """

    probabilities: Float32

    def __repr__(self) -> str:
        best = f"class_index {self.class_index}, probability {self.probabilities.max():.3f}"
        return f"ClassPrediction({best} of {counted(len(self.probabilities), 'class', 'classes')})"

    @property
    def class_index(self) -> int:
        return int(np.argmax(self.probabilities))


@dataclass(frozen=True)
class FieldPredictions:
    """The output of a classifier with several label fields for one image.

    Attributes:
        fields: name of the field -> its prediction, in the order of the fields.
    """

    fields: dict[str, ClassPrediction]

    def __repr__(self) -> str:
        best = [f"{name} {part.class_index} ({part.probabilities.max():.3f})" for name, part in self.fields.items()]
        return f"FieldPredictions(class_index and probability by field: {listed(best, 200)})"

    def __getitem__(self, name: str) -> ClassPrediction:
        return self.fields[name]

    def labels(self) -> list[int]:
        """The most probable class of each field as a label 1..K of the ``joined`` class map."""
        labels, offset = [], 0
        for prediction in self.fields.values():
            labels.append(offset + prediction.class_index + 1)
            offset += len(prediction.probabilities)
        return labels


def _contents(scores: Float32, masks: object, keypoints: object) -> str:
    """Number and scores of detections, and what they have besides boxes."""
    kinds = " and ".join(name for name, value in (("masks", masks), ("keypoints", keypoints)) if value is not None)
    extent = f", scores {scores[0]:.3f} to {scores[-1]:.3f}" if len(scores) else ""
    return counted(len(scores), "detection") + (f" with {kinds}" if kinds else "") + extent
