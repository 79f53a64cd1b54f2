"""Classify each detection of an image with a second model, from its pixels in the original image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.structures import ClassPrediction, FieldPredictions, ObjectClass, Prediction

BATCH = 16
"""Most crops that are classified together."""

UInt8 = npt.NDArray[np.uint8]


class Classifier(Protocol):
    """What is needed of the second model, a ``Predictor``."""

    class_map: ClassMap
    label_fields: tuple[LabelField, ...]
    task: str

    def many(self, images: Any, /) -> list[Any]: ...


def check_chain(task: str, classifier: Classifier) -> None:
    """DataError unless a model of ``task`` finds objects, and ``classifier`` classifies images."""
    if task == "classify":
        raise DataError("a classifier finds no objects that another model could classify; chain a detector, then it")
    if classifier.task != "classify":
        raise DataError(
            f"the second model of a chain is one of task {classifier.task}; pass a classifier (train it on crops of "
            "the objects: predict --outputs crops)"
        )


def classify_objects(prediction: Prediction, image: UInt8, classifier: Classifier) -> Prediction:
    """The prediction with ``object_classes``: what ``classifier`` says about the pixels of each box.

    Args:
        image: uint8 [H, W, 3] RGB, upright, of the prediction's size.
    """
    crops = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in crop_boxes(prediction).tolist()]
    parts = [classifier.many(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
    return replace(prediction, object_classes=[_classes(output, classifier) for part in parts for output in part])


def crop_boxes(prediction: Prediction) -> npt.NDArray[np.int64]:
    """int64 [M, 4] xyxy: the whole pixels that each box touches, at least one, inside the image."""
    size_wh = np.array(prediction.size_hw[::-1])
    first = np.clip(np.floor(prediction.boxes[:, :2]), 0, size_wh - 1)
    last = np.clip(np.ceil(prediction.boxes[:, 2:]), first + 1, size_wh)
    return np.concatenate([first, last], axis=1).astype(np.int64)


def _classes(output: ClassPrediction | FieldPredictions, classifier: Classifier) -> list[ObjectClass]:
    if isinstance(output, FieldPredictions):
        return [
            _best(part, field.class_map, field.name)
            for field, part in zip(classifier.label_fields, output.fields.values(), strict=True)
        ]
    return [_best(output, classifier.class_map, "")]


def _best(output: ClassPrediction, class_map: ClassMap, field: str) -> ObjectClass:
    index = output.class_index
    return ObjectClass(class_map.names[index], float(output.probabilities[index]), field)
