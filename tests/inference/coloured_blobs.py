"""Networks without weights: a detector of coloured blobs on black, and classifiers of colours."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from detseg.classes import ClassMap, LabelField, joined
from detseg.inference import predictor as predictor_module
from detseg.inference.predictor import Predictor
from detseg.keypoints import keypoint_schema
from detseg.preprocess import Preprocessing
from detseg.structures import ClassPrediction, FieldPredictions, RawPrediction

RED, BLUE = (220, 30, 30), (30, 30, 220)
SIZE_HW = (64, 96)
POINTS = keypoint_schema(["left_end", "right_end"], [(0, 1)])
FIELDS = (LabelField("hue", ClassMap.from_names(["red", "blue"])), LabelField("size", ClassMap.from_names(["a", "b"])))


def blobs(*items: tuple[int, int, int, int, tuple[int, int, int]]) -> npt.NDArray[np.uint8]:
    """An image with rectangles x1, y1, x2, y2, colour."""
    image = np.zeros((*SIZE_HW, 3), np.uint8)
    for x1, y1, x2, y2, colour in items:
        image[y1:y2, x1:x2] = colour
    return image


class Blobs:
    """Finds all blobs: boxes, and masks or end points. The larger ones have higher scores and are of class "large"."""

    device = "cpu"

    def __init__(self, task: str = "detect") -> None:
        self.description: Any = SimpleNamespace(
            arch="blobs",
            task=task,
            class_map=ClassMap.from_names(["small", "large"]),
            label_fields=(),
            keypoints=POINTS if task == "keypoints" else None,
            preprocessing=Preprocessing(min_size=SIZE_HW[0], max_size=0),
            score_threshold=0.05,
            nms_threshold=0.5,
            detections_per_image=100,
        )

    def __call__(self, images: Any) -> list[RawPrediction]:
        return [self._find(image) for image in images]

    def _find(self, image: npt.NDArray[np.uint8]) -> RawPrediction:
        count, _, stats, _ = cv2.connectedComponentsWithStats((image.max(axis=2) > 100).astype(np.uint8))
        x, y, width, height, area = stats[1:count].T.astype(np.float32)
        order = np.argsort(-area, kind="stable")
        boxes = np.stack([x, y, x + width, y + height], axis=1)[order]
        masks = np.ones((len(order), 28, 28), np.float32) if self.description.task == "segment" else None
        points = None
        if self.description.task == "keypoints":
            middle = boxes[:, [1, 3]].mean(axis=1)
            points = np.stack([np.stack([boxes[:, i], middle, np.ones(len(boxes))], axis=1) for i in (0, 2)], axis=1)
            points = points.astype(np.float32)
        scores = np.clip(0.3 + area[order] / 500, 0, 0.99).astype(np.float32)
        return RawPrediction(boxes, 1 + (area[order] > 100).astype(np.int64), scores, masks, points)


class Colours:
    """Classifies the mean colour."""

    device = "cpu"

    def __init__(self, fields: tuple[LabelField, ...] = ()) -> None:
        class_map = joined(fields) if fields else ClassMap.from_names(["red", "blue"])
        self.description: Any = SimpleNamespace(
            arch="colours",
            task="classify",
            class_map=class_map,
            label_fields=fields,
            keypoints=None,
            preprocessing=Preprocessing(min_size=8, max_size=0, crop=8),
        )

    def __call__(self, images: Any) -> list[Any]:
        results = []
        for image in images:
            red, _, blue = image.reshape(-1, 3).mean(axis=0) + 1
            hue = ClassPrediction((np.array([red, blue]) / (red + blue)).astype(np.float32))
            other = ClassPrediction(np.array([0.75, 0.25], np.float32))
            results.append(FieldPredictions({"hue": hue, "size": other}) if self.description.label_fields else hue)
        return results


BACKENDS: dict[str, Any] = {
    "detect": Blobs,
    "segment": lambda: Blobs("segment"),
    "keypoints": lambda: Blobs("keypoints"),
    "classify": Colours,
    "fields": lambda: Colours(FIELDS),
}
"""Name of a run -> its network."""


@pytest.fixture
def blob_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """``Predictor(NAME)`` opens one of :data:`BACKENDS`."""
    monkeypatch.setattr(predictor_module, "_open", lambda run, device: BACKENDS[Path(run).name]())


def opened(name: str, **options: Any) -> Predictor:
    return Predictor(name, **options)
