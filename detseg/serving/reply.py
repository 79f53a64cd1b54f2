"""Convert predictions to the JSON of the server's answers, and back.

The answer for an image has the size of the upright image in pixels, and one of three lists::

    {"width": 640, "height": 480, "objects": [
        {"class_name": "bolt", "score": 0.9731, "box": [12.5, 40.0, 88.25, 121.0],
         "mask": {"size": [480, 640], "counts": "..."}, "keypoints": [[20.0, 50.5, 0.81], ...]}]}
    {"width": 640, "height": 480, "classes": [{"class_name": "daisy", "probability": 0.8314}, ...]}
    {"width": 640, "height": 480, "fields": {"colour": [{"class_name": "red", "probability": 0.7}, ...], ...}}

``objects``: detections, the highest score first. ``box`` is x1, y1, x2, y2 in pixels from the left and upper edge.
``mask`` (models with masks) is COCO's compressed RLE of the whole image, which is exact; or with ``masks=polygon`` a
list of outlines ``[x, y, x, y, ...]`` through the centres of the outermost pixels, without holes. ``keypoints`` (models
with keypoints) has x, y and score of each point. With a chained classifier each of ``objects`` also has a
``classification``, ``{"class_name": "M8", "probability": 0.9712}``, or with label fields ``{"fields": {"thread":
{"class_name": "M8", "probability": 0.9712}, ...}}``. ``classes`` and ``fields`` (classifiers with one or several label
fields): the most probable classes. Coordinates have two decimals, scores and probabilities four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.inference.results import classification_json, classification_of
from detseg.keypoints import KeypointSchema
from detseg.masks import check_rle, rle_crop
from detseg.structures import RLE, ClassPrediction, FieldPredictions, Prediction

Masks = Literal["rle", "polygon", "none"]


class Model(Protocol):
    """What the server needs of a ``Predictor``, which has descriptions of these."""

    class_map: ClassMap
    label_fields: tuple[LabelField, ...]
    task: str
    keypoints: KeypointSchema | None

    def many(self, images: Sequence[Any], /) -> list[Any]: ...


@dataclass(frozen=True)
class ReplyOptions:
    """What an answer contains.

    Attributes:
        masks: form of the masks.
        min_score: minimum score of detections.
        top: number of classes of a classifier.
    """

    masks: Masks = "rle"
    min_score: float = 0.0
    top: int = 5


def describe(model: Model) -> dict[str, Any]:
    """The model as JSON: its task and the names of its classes, label fields and keypoints; with a chained classifier
    the same of that under ``"then"``."""
    points = model.keypoints
    then: Model | None = getattr(model, "then", None)
    chained = {} if then is None else {"then": describe(then)}
    return {
        "task": model.task,
        "classes": list(model.class_map.names),
        "label_fields": {field.name: list(field.class_map.names) for field in model.label_fields},
        "keypoints": list(points.names) if points else [],
        "skeleton": [list(pair) for pair in points.skeleton] if points else [],
        **chained,
    }


def to_reply(
    prediction: Prediction | ClassPrediction | FieldPredictions,
    size_hw: tuple[int, int],
    model: Model,
    options: ReplyOptions = ReplyOptions(),
) -> dict[str, Any]:
    """The answer for an image of ``size_hw``. DataError if it has numbers that are not finite, which JSON has not."""
    reply: dict[str, Any] = {"width": size_hw[1], "height": size_hw[0]}
    if isinstance(prediction, FieldPredictions):
        fields = zip(model.label_fields, prediction.fields.values(), strict=True)
        reply["fields"] = {field.name: _classes(part, field.class_map.names, options.top) for field, part in fields}
    elif isinstance(prediction, ClassPrediction):
        reply["classes"] = _classes(prediction, model.class_map.names, options.top)
    else:
        reply["objects"] = _objects(prediction.above(options.min_score), model.class_map, options.masks)
    return reply


def from_reply(reply: Mapping[str, Any], model: Mapping[str, Any]) -> Prediction | ClassPrediction | FieldPredictions:
    """The prediction of an answer with RLE masks; classes that a classifier's answer leaves out have probability 0.

    Args:
        reply: of :func:`to_reply`, from a server, which is not trusted.
        model: of :func:`describe`.

    Raises:
        DataError: it is not an answer of such a model.
    """
    try:
        if model["label_fields"]:
            fields = model["label_fields"].items()
            return FieldPredictions({name: _class_prediction(reply["fields"][name], names) for name, names in fields})
        if model["task"] == "classify":
            return _class_prediction(reply["classes"], model["classes"])
        return _prediction(reply, list(model["classes"]), len(model["keypoints"]), chained="then" in model)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"the answer of the server is not a prediction ({reason}); is it a detseg server?") from error


def _classes(prediction: ClassPrediction, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    probabilities = _rounded(prediction.probabilities, 4)
    order = np.argsort(-prediction.probabilities, kind="stable")[:top]
    return [{"class_name": names[i], "probability": probabilities[i]} for i in order]


def _objects(prediction: Prediction, class_map: ClassMap, masks: Masks) -> list[dict[str, Any]]:
    boxes, scores = _rounded(prediction.boxes, 2), _rounded(prediction.scores, 4)
    points = None if prediction.keypoints is None else _rounded(prediction.keypoints, (2, 2, 4))
    objects = []
    for i, label in enumerate(prediction.labels.tolist()):
        item: dict[str, Any] = {"class_name": class_map.name_of(label), "score": scores[i], "box": boxes[i]}
        if prediction.rles is not None and masks != "none":
            rle = prediction.rles[i]
            item["mask"] = _polygons(rle) if masks == "polygon" else _rle(rle)
        if points is not None:
            item["keypoints"] = points[i]
        if prediction.object_classes is not None:
            item["classification"] = classification_json(prediction.object_classes[i], 4)
        objects.append(item)
    return objects


def _rounded(values: npt.NDArray[Any], decimals: int | tuple[int, ...]) -> list[Any]:
    """Nested lists of rounded numbers; several ``decimals`` are those of the last axis."""
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise DataError("the prediction has numbers that are not finite; the weights of the model are not usable")
    scale = 10.0 ** np.asarray(decimals)
    rounded: list[Any] = (np.round(numbers * scale) / scale).tolist()
    return rounded


def _rle(rle: RLE) -> dict[str, Any]:
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _polygons(rle: RLE) -> list[list[float]]:
    crop, top, left = rle_crop(rle)
    polygons = []
    for points in cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0] if crop.size else ():
        outline = points[:, 0].astype(np.float64) + np.array([left + 0.5, top + 0.5])
        if len(outline) < 3:  # one pixel, or a line of them
            (x1, y1), (x2, y2) = outline.min(0) - 0.5, outline.max(0) + 0.5
            outline = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
        polygons.append(outline.ravel().tolist())
    return polygons


def _class_prediction(classes: Sequence[Mapping[str, Any]], names: Sequence[str]) -> ClassPrediction:
    probabilities = np.zeros(len(names), np.float32)
    for item in classes:
        probabilities[names.index(item["class_name"])] = _finite(item["probability"])
    return ClassPrediction(probabilities)


def _prediction(reply: Mapping[str, Any], names: list[str], points: int, *, chained: bool) -> Prediction:
    size_hw, objects = (int(reply["height"]), int(reply["width"])), reply["objects"]
    rles = [check_rle(item["mask"], size_hw, "the server's mask") for item in objects if "mask" in item]
    keypoints = [item["keypoints"] for item in objects] if points else None
    return Prediction(
        size_hw,
        _finite([item["box"] for item in objects]).reshape(len(objects), 4),
        np.array([names.index(item["class_name"]) + 1 for item in objects], np.int64),
        _finite([item["score"] for item in objects]),
        rles if objects and len(rles) == len(objects) else None,
        None if keypoints is None else _finite(keypoints).reshape(len(objects), points, 3),
        [classification_of(item["classification"]) for item in objects] if chained else None,
    )


def _finite(values: Any) -> npt.NDArray[np.float32]:
    numbers = np.asarray(values, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("numbers that are not finite")
    return numbers
