"""A detector and a classifier of its objects, in Python, in files, in drawings and in the answers of the server."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.cli import main
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference.chain import crop_boxes
from detseg.inference.results import classification_of, to_results
from detseg.reports.draw import draw
from detseg.serving.reply import describe, from_reply, to_reply
from detseg.structures import ObjectClass, Prediction
from tests.inference.coloured_blobs import BLUE, RED, SIZE_HW, blob_runs, blobs, opened

__all__ = ["blob_runs"]
pytestmark = pytest.mark.usefixtures("blob_runs")

TWO = blobs((5, 5, 30, 25, BLUE), (50, 30, 60, 38, RED))


def classes(prediction: object) -> list[str]:
    assert isinstance(prediction, Prediction)
    assert prediction.object_classes is not None
    return [str(item.class_name) for objects in prediction.object_classes for item in objects]


def test_each_box_is_classified_by_its_pixels() -> None:
    chained = opened("detect", then="classify")
    prediction = chained(TWO)
    assert classes(prediction) == ["blue", "red"]
    assert classes(chained(TWO[:, ::-1].copy())) == ["blue", "red"]
    assert classes(chained(TWO[..., ::-1].copy())) == ["red", "blue"], "control: the colours are exchanged"
    assert classes(chained(blobs())) == []
    without = opened("detect")(TWO)
    assert isinstance(without, Prediction)
    assert without.object_classes is None
    assert isinstance(prediction, Prediction)
    np.testing.assert_array_equal(prediction.boxes, without.boxes)
    np.testing.assert_array_equal(prediction.scores, without.scores)
    assert classes(prediction.above(0.9)) == ["blue"]


def test_a_crop_of_another_place_has_another_class() -> None:
    """Control: the class follows from the box, not from the order or the whole image."""
    predictor = opened("detect", then="classify")
    loaded = predictor.load(TWO)
    assert loaded.full is not None
    moved = type(loaded)(loaded.pixels, loaded.geometry, loaded.full[::-1, ::-1].copy())
    assert classes(predictor.run([moved])[0]) != ["blue", "red"]


def test_label_fields_and_many_objects() -> None:
    many = blobs(*[(x, y, x + 6, y + 6, RED if x % 20 else BLUE) for x in range(0, 90, 10) for y in (5, 25, 45)])
    predictor = opened("detect", then=opened("fields"))
    prediction = predictor(many)
    assert isinstance(prediction, Prediction)
    assert prediction.object_classes is not None
    assert len(prediction) == 27
    for box, (hue, size) in zip(prediction.boxes, prediction.object_classes, strict=True):
        assert (hue.field, hue.class_name) == ("hue", "red" if box[0] % 20 else "blue")
        assert (size.field, size.class_name, size.probability) == ("size", "a", 0.75)


def test_crops_have_pixels_also_of_boxes_without_any() -> None:
    boxes = np.float32([[3.5, 2.5, 7.5, 4.5], [96, 64, 96, 64], [0, 0, 0, 0], [-0.0, 5, 0.2, 5]])
    prediction = Prediction(SIZE_HW, boxes, np.ones(4, np.int64), np.ones(4, np.float32))
    expected = [[3, 2, 8, 5], [95, 63, 96, 64], [0, 0, 1, 1], [0, 5, 1, 6]]
    np.testing.assert_array_equal(crop_boxes(prediction), expected)


def test_models_that_cannot_be_chained() -> None:
    with pytest.raises(DataError, match="the second model of a chain is one of task segment; pass a classifier"):
        opened("detect", then="segment")
    with pytest.raises(DataError, match="a classifier finds no objects"):
        opened("classify", then="classify")


@pytest.mark.parametrize("then", ["classify", "fields"])
def test_results_and_answers_have_the_class(then: str) -> None:
    predictor = opened("segment", then=then)
    prediction = predictor(TWO)
    assert isinstance(prediction, Prediction)
    results = json.loads(json.dumps(to_results(prediction, predictor.class_map)))
    assert [result["category"] for result in results] == ["large", "small"]
    assert [classification_of(result["classification"]) for result in results] == prediction.object_classes
    reply = json.loads(json.dumps(to_reply(prediction, SIZE_HW, predictor)))
    model = describe(predictor)
    assert model["then"]["classes"] == list(predictor.then.class_map.names if predictor.then else ())
    again = from_reply(reply, model)
    assert classes(again) == classes(prediction)
    for item in reply["objects"]:
        del item["classification"]
    with pytest.raises(DataError, match="not a prediction"):  # control
        from_reply(reply, model)
    evil = to_reply(prediction, SIZE_HW, predictor)
    evil["objects"][0]["classification"] = {"class_name": "x", "probability": "nan"}
    with pytest.raises(DataError, match="not a prediction"):
        from_reply(evil, model)


def test_drawings_show_the_class() -> None:
    predictor = opened("detect", then="classify")
    prediction = predictor(TWO)
    assert isinstance(prediction, Prediction)
    large = cv2.resize(TWO, None, fx=6, fy=6)
    scaled = Prediction(
        (384, 576), prediction.boxes * 6, prediction.labels, prediction.scores, object_classes=prediction.object_classes
    )
    plain = Prediction((384, 576), prediction.boxes * 6, prediction.labels, prediction.scores)
    with_class, without = (draw(large, item, predictor.class_map, min_score=0) for item in (scaled, plain))
    assert (with_class != without).any()
    assert str(ObjectClass("M8", 0.971)) == "M8 0.97"
    assert str(ObjectClass("M8", 0.971, "thread")) == "thread=M8 0.97"


def test_predict_chains_two_runs(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "two.png"), TWO[..., ::-1])
    command = ["predict", "detect", str(tmp_path / "two.png"), "--output", str(tmp_path / "out"), "--min-score", "0"]
    assert main([*command, "--then", "classify", "--outputs", "coco,csv,images,crops"]) == 0
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [item["classification"]["class_name"] for item in found] == ["blue", "red"]
    rows = (tmp_path / "out/predictions.csv").read_text().splitlines()
    assert rows[0].endswith(",second_class,second_probability")
    assert [row.split(",")[-2] for row in rows[1:]] == ["blue", "red"]
    crop = decode_image(tmp_path / "out/predicted-crops/large/two.png-1.jpg")
    assert crop.shape == (20, 25, 3)
    assert crop[..., 2].mean() > 2 * crop[..., 0].mean()
    assert main(command) == 0
    assert "classification" not in (tmp_path / "out/predictions.json").read_text()
