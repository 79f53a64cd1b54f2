"""Convert predictions to dicts in the COCO results format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pycocotools import mask as coco_mask

from detseg.boxes import xyxy_to_xywh
from detseg.classes import ClassMap
from detseg.structures import ClassPrediction, FieldPredictions, ObjectClass, Prediction


def to_results(
    prediction: Prediction | ClassPrediction | FieldPredictions, class_map: ClassMap
) -> list[dict[str, Any]]:
    """One dict per detection in COCO results format, without the image id, in upright pixels. For a classifier, one
    dict per image, or one per label field. What a chained classifier says about a detection is its
    ``classification``, see :func:`classification_json`."""
    if isinstance(prediction, FieldPredictions):
        return [
            {
                "field": name,
                "category_id": class_map.category_id_of(label),
                "category": class_map.name_of(label).removeprefix(f"{name}="),
                "score": float(field.probabilities.max()),
                "probabilities": [float(value) for value in field.probabilities],
            }
            for (name, field), label in zip(prediction.fields.items(), prediction.labels(), strict=True)
        ]
    if isinstance(prediction, ClassPrediction):
        index = prediction.class_index
        return [
            {
                "category_id": class_map.category_ids[index],
                "category": class_map.names[index],
                "score": float(prediction.probabilities[index]),
                "probabilities": [float(value) for value in prediction.probabilities],
            }
        ]
    results = []
    for i, box in enumerate(xyxy_to_xywh(prediction.boxes.astype("float64"))):
        label = int(prediction.labels[i])
        result: dict[str, Any] = {
            "category_id": class_map.category_id_of(label),
            "category": class_map.name_of(label),
            "bbox": [float(value) for value in box],
            "score": float(prediction.scores[i]),
        }
        if prediction.rles is not None:
            rle = prediction.rles[i]
            result["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
            result["area"] = float(coco_mask.area(rle))
        if prediction.keypoints is not None:
            result["keypoints"] = [float(value) for value in prediction.keypoints[i].ravel()]
        if prediction.object_classes is not None:
            result["classification"] = classification_json(prediction.object_classes[i])
        results.append(result)
    return results


def classification_json(classes: Sequence[ObjectClass], decimals: int | None = None) -> dict[str, Any]:
    """``{"class_name": "M8", "probability": 0.97}``; of a classifier with label fields ``{"fields": {NAME: ...}}``.

    Args:
        decimals: of the probabilities; None for all.
    """
    parts = {
        item.field: {
            "class_name": item.class_name,
            "probability": item.probability if decimals is None else round(item.probability, decimals),
        }
        for item in classes
    }
    return parts.get("", {"fields": parts})


def classification_of(value: Mapping[str, Any]) -> list[ObjectClass]:
    """The classes that :func:`classification_json` has written.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    parts = value["fields"].items() if "fields" in value else [("", value)]
    classes = [ObjectClass(str(part["class_name"]), float(part["probability"]), str(name)) for name, part in parts]
    if not all(0 <= item.probability <= 1 for item in classes):
        raise ValueError("a probability is not in [0, 1]")
    return classes
