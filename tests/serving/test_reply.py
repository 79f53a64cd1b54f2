"""Answers as JSON: rounded, exact masks as RLE, outlines as polygons, and back to predictions."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.masks import mask_to_rle, rasterize
from detseg.serving.reply import ReplyOptions, describe, from_reply, to_reply
from detseg.structures import ClassPrediction, FieldPredictions, Prediction


class Model:
    def __init__(
        self, task: str = "segment", fields: tuple[LabelField, ...] = (), points: tuple[str, ...] = ()
    ) -> None:
        self.class_map = ClassMap(("bolt", "nut"))
        self.label_fields = fields
        self.task = task
        self.keypoints = keypoint_schema(points, [(0, 1)]) if points else None

    def many(self, images: Any, /) -> list[Any]:
        return []


def detections(number: int, points: bool = False) -> Prediction:
    rng = np.random.default_rng(number)
    boxes = np.sort(rng.random((number, 2, 2)) * 40, axis=1).reshape(number, 4).astype(np.float32)
    masks = rng.random((number, 40, 50)) > 0.5
    keypoints = rng.random((number, 2, 3)).astype(np.float32) if points else None
    scores = np.sort(rng.random(number).astype(np.float32))[::-1]
    labels = rng.integers(1, 3, number)
    return Prediction((40, 50), boxes, labels, scores, [mask_to_rle(mask) for mask in masks], keypoints)


@pytest.mark.parametrize("number", [0, 1, 7])
@pytest.mark.parametrize("points", [False, True])
def test_an_answer_gives_the_prediction_back(number: int, points: bool) -> None:
    model, prediction = Model(points=("left", "right") if points else ()), detections(number, points)
    reply = json.loads(json.dumps(to_reply(prediction, (40, 50), model), allow_nan=False))
    again = from_reply(reply, json.loads(json.dumps(describe(model))))
    assert isinstance(again, Prediction)
    assert again.size_hw == (40, 50)
    np.testing.assert_allclose(again.boxes, prediction.boxes, atol=0.00501)
    np.testing.assert_allclose(again.scores, prediction.scores, atol=0.0000501)
    np.testing.assert_array_equal(again.labels, prediction.labels)
    np.testing.assert_array_equal(again.masks(), prediction.masks())
    if points:
        np.testing.assert_allclose(again.keypoints, prediction.keypoints, atol=0.00501)


def test_numbers_are_rounded() -> None:
    prediction = Prediction((9, 9), np.float32([[0.1, 1 / 3, 5, 6]]), np.array([1]), np.float32([0.123456]))
    (item,) = to_reply(prediction, (9, 9), Model("detect"))["objects"]
    assert json.dumps(item) == '{"class_name": "bolt", "score": 0.1235, "box": [0.1, 0.33, 5.0, 6.0]}'
    assert "0.10000000149" in json.dumps(prediction.boxes.tolist()), "control: float32 as it is"


def test_minimum_score_and_form_of_masks() -> None:
    prediction = detections(7)
    least = float(prediction.scores[3])
    items = to_reply(prediction, (40, 50), Model(), ReplyOptions("none", least))["objects"]
    assert len(items) == 4
    assert not any("mask" in item for item in items)


@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(5, 20), slice(10, 30)), (slice(3, 4), slice(0, 50)), (slice(7, 8), slice(7, 8))]
)
def test_polygons_enclose_the_mask(rows: slice, columns: slice) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[rows, columns] = 1
    prediction = Prediction((40, 50), np.float32([[0, 0, 1, 1]]), np.array([1]), np.float32([1]), [mask_to_rle(mask)])
    (item,) = to_reply(prediction, (40, 50), Model(), ReplyOptions("polygon"))["objects"]
    (outline,) = item["mask"]
    assert min(outline) >= 0
    again = rasterize([np.reshape(outline, (-1, 2))], (40, 50), (40, 50))
    assert not (again & ~mask & 1).any(), "nothing outside"
    inside = (mask.sum() - again.sum()) / max(1, mask.sum())
    assert inside <= 0.15


def test_an_empty_mask_has_no_polygon() -> None:
    rle = mask_to_rle(np.zeros((4, 4), np.uint8))
    prediction = Prediction((4, 4), np.float32([[0, 0, 1, 1]]), np.array([1]), np.float32([1]), [rle])
    assert to_reply(prediction, (4, 4), Model(), ReplyOptions("polygon"))["objects"][0]["mask"] == []


def test_classes_and_label_fields() -> None:
    model = Model("classify")
    one = ClassPrediction(np.float32([0.25, 0.75]))
    reply = to_reply(one, (4, 6), model, ReplyOptions(top=1))
    assert reply == {"width": 6, "height": 4, "classes": [{"class_name": "nut", "probability": 0.75}]}
    again = from_reply(reply, describe(model))
    assert isinstance(again, ClassPrediction)
    assert again.probabilities.tolist() == [0, 0.75]
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("kind", ClassMap(("a", "b"))))
    model = Model("classify", fields)
    reply = to_reply(FieldPredictions({"colour": one, "kind": one}), (4, 6), model)
    assert [item["class_name"] for item in reply["fields"]["colour"]] == ["blue", "red"]
    again = from_reply(reply, describe(model))
    assert isinstance(again, FieldPredictions)
    assert again["kind"].probabilities.tolist() == [0.25, 0.75]


def test_numbers_that_are_not_finite_are_an_error() -> None:
    prediction = Prediction((9, 9), np.float32([[0, 0, np.nan, 6]]), np.array([1]), np.float32([0.5]))
    with pytest.raises(DataError, match="not finite"):
        to_reply(prediction, (9, 9), Model("detect"))


@pytest.mark.parametrize(
    "change",
    [
        {"objects": [{"class_name": "screw", "score": 1, "box": [0, 0, 1, 1]}]},
        {"objects": [{"class_name": "bolt", "score": 1, "box": [0, 0, 1]}]},
        {"objects": [{"class_name": "bolt", "score": 1, "box": [0, 0, 1, float("nan")]}]},
        {"objects": [{"class_name": "bolt", "score": 1, "box": [0, 0, 1, 1], "mask": {"size": [9, 9], "counts": "~"}}]},
        {"objects": [{"class_name": "bolt"}]},
        {"objects": 5},
        {"width": "x"},
    ],
)
def test_answers_of_another_server_are_an_error(change: dict[str, Any]) -> None:
    reply = {"width": 9, "height": 9, "objects": [], **change}
    with pytest.raises(DataError):
        from_reply(reply, describe(Model()))
    assert len(from_reply({"width": 9, "height": 9, "objects": []}, describe(Model()))) == 0, "control"  # type: ignore[arg-type]
