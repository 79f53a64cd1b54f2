"""Draw ground truth and prediction of an image side by side, with misses and false alarms marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import Record
from detseg.boxes import scale_xyxy, xywh_to_xyxy
from detseg.classes import ClassMap
from detseg.object_matches import ObjectMatches, match_objects
from detseg.reports.draw import draw
from detseg.runtime.reporter import Reporter
from detseg.short_text import counted
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

UInt8 = npt.NDArray[np.uint8]
AnyPrediction = Prediction | ClassPrediction | FieldPredictions


@dataclass(frozen=True)
class Compared:
    """An image with its ground truth and its prediction.

    Attributes:
        name: of the image.
        images: uint8 [H, W, 3]: of a detector ground truth, then prediction; of a classifier the image.
        captions: one for each of ``images``.
        is_wrong: whether the prediction has a mistake.
    """

    name: str
    images: tuple[UInt8, ...]
    captions: tuple[str, ...]
    is_wrong: bool


def matches_of(record: Record, prediction: Prediction, num_labels: int, min_score: float = 0.5) -> ObjectMatches:
    """Match the predictions of at least ``min_score`` with the objects of a record, at IoU 0.5.

    The prediction may be of the image at another size.
    """
    shown = prediction.above(min_score)
    return match_objects(
        scale_xyxy(xywh_to_xyxy(record.boxes_xywh), record.size_hw, shown.size_hw),
        record.labels,
        shown.boxes,
        shown.labels,
        num_labels=num_labels,
        not_counted=record.iscrowd | record.ignore | record.difficult,
    )


def compare(
    image: UInt8,
    record: Record,
    prediction: AnyPrediction,
    class_map: ClassMap,
    *,
    min_score: float = 0.5,
    skeleton: Sequence[tuple[int, int]] = (),
    enlarge: float = 1.0,
    reporter: Reporter | None = None,
) -> Compared:
    """Draw an image with its ground truth and with its prediction.

    Objects without a prediction are marked "missed", predictions of no object "false alarm" (by boxes, at IoU 0.5).

    Args:
        image: uint8 [H, W, 3] RGB, upright, of the size of ``prediction``.
        record: its ground truth.
        class_map: of both.
        min_score: predictions below it are not drawn, and not counted as false alarms.
        skeleton, enlarge: as in :func:`~detseg.reports.draw.draw`.
    """
    if not isinstance(prediction, Prediction):
        return _compare_classes(image, record, prediction, class_map)
    matches = matches_of(record, prediction, len(class_map), min_score)
    missed = {int(i): "missed" for i in np.flatnonzero(matches.is_missed)}
    alarms = {int(i): "false alarm" for i in np.flatnonzero(matches.is_false_alarm)}
    options: dict[str, Any] = {"min_score": min_score, "skeleton": skeleton, "enlarge": enlarge, "reporter": reporter}
    drawn = (
        draw(image, record, class_map, marks=missed, **options),
        draw(image, prediction, class_map, marks=alarms, instances=_own_hues(matches, len(record)), **options),
    )
    objects = counted(len(record), "object")
    captions = (
        f"{objects}, {len(missed)} missed" if missed else f"{objects}, all detected" if len(record) else "no object",
        f"prediction, {counted(len(alarms), 'false alarm')}" if alarms else "prediction, no false alarm",
    )
    return Compared(record.name, drawn, captions, bool(missed or alarms))


def _own_hues(matches: ObjectMatches, objects: int) -> list[int]:
    """Return the number of each prediction for its hue: that of its object, else a number of its own."""
    own = iter(range(objects, objects + len(matches.object_of)))
    return [int(index) if index >= 0 else next(own) for index in matches.object_of]


def wrong_classes(
    record: Record, prediction: ClassPrediction | FieldPredictions, class_map: ClassMap
) -> list[tuple[str, str, float]]:
    """Return (true class, predicted class, its score) of each label field whose prediction is wrong."""
    return [
        (true, predicted, score)
        for true, predicted, score in _classes(record, prediction, class_map)
        if true != predicted
    ]


def _classes(record: Record, prediction: Any, class_map: ClassMap) -> list[tuple[str, str, float]]:
    """Return (true class, predicted class, its score) of each label field with a label."""
    if isinstance(prediction, ClassPrediction):
        fields, names = {"": prediction}, {"": class_map}
        indices = {"": int(record.class_index[0])}
    else:
        fields = prediction.fields
        names = {field.name: field.class_map for field in record.label_fields}
        indices = {field.name: int(index) for field, index in zip(record.label_fields, record.class_index, strict=True)}
    return [
        (
            f"{name}={names[name].name_of(indices[name] + 1)}" if name else class_map.name_of(indices[name] + 1),
            f"{name}={names[name].name_of(part.class_index + 1)}" if name else class_map.name_of(part.class_index + 1),
            float(part.probabilities.max()),
        )
        for name, part in fields.items()
        if indices[name] >= 0
    ]


def _compare_classes(image: UInt8, record: Record, prediction: Any, class_map: ClassMap) -> Compared:
    rows = _classes(record, prediction, class_map)
    lines = [
        f"true: {true}\npredicted: {predicted} ({score:.2f})" if true != predicted else f"{true} ({score:.2f}), correct"
        for true, predicted, score in rows
    ]
    wrong = any(true != predicted for true, predicted, _ in rows)
    return Compared(record.name, (image,), ("\n".join(lines) or "no class",), wrong)
