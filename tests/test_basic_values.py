"""Basic values: boxes, classes, seeds, files and predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detseg.boxes import clip_xyxy, scale_xyxy, xywh_to_xyxy, xyxy_to_xywh
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.masks import mask_to_rle
from detseg.runtime.files import atomic_write, write_json
from detseg.runtime.seeds import derive_seed
from detseg.structures import ClassPrediction, FieldPredictions, Prediction

BOXES = [np.zeros((0, 4)), np.array([[1.5, 2.0, 3.0, 4.25]]), np.arange(40, dtype=np.float64).reshape(10, 4)]


@pytest.mark.parametrize("boxes", BOXES, ids=len)
def test_box_conversions_round_trip(boxes: np.ndarray) -> None:
    assert np.array_equal(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes)
    xyxy = xywh_to_xyxy(boxes)
    scaled = scale_xyxy(xyxy, (50, 80), (100, 40))
    assert scaled.shape == boxes.shape
    assert np.allclose(scale_xyxy(scaled, (100, 40), (50, 80)), xyxy)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 10, 20], [0, 0, 10, 20]),
        ([-3, -4, 5, 6], [0, 0, 5, 6]),
        ([5, 5, 15.5, 20.001], [5, 5, 10, 20]),
        ([12, 25, 15, 30], [10, 20, 10, 20]),
    ],
)
def test_clipped_boxes_have_no_negative_size(box: list[float], expected: list[float]) -> None:
    clipped = clip_xyxy(np.array([box], np.float32), (20, 10))
    assert clipped.dtype == np.float32
    assert np.allclose(clipped, [expected])


def test_class_map_converts_label_class_index_and_category_id() -> None:
    classes = ClassMap(("cat", "dog"), (17, 0))
    assert (len(classes), classes.num_classes) == (2, 3)
    assert (classes.label_of("dog"), classes.name_of(1), classes.category_id_of(2)) == (2, "cat", 0)
    assert classes.labels_by_category_id() == {17: 1, 0: 2}
    assert ClassMap.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_classes_are_selected_in_the_given_order() -> None:
    classes = ClassMap(("cat", "dog", "ant"), (17, 0, 5))
    assert classes.select(None, "a.json") is classes
    assert classes.select(["ant", "cat"], "a.json") == ClassMap(("ant", "cat"), (5, 17))
    with pytest.raises(DataError, match=r"a\.json: no class 'bee'; available classes: cat, dog, ant"):
        classes.select(["cat", "bee"], "a.json")
    with pytest.raises(DataError, match="available classes: none"):
        ClassMap(()).select(["bee"], "a.json")


def test_class_map_without_classes() -> None:
    assert (len(ClassMap(())), ClassMap(()).num_classes) == (0, 1)


@pytest.mark.parametrize("label", [0, -1, 3])
def test_label_0_is_background_and_has_no_name(label: int) -> None:
    with pytest.raises(DataError, match=r"1\.\.2"):
        ClassMap.from_names(["cat", "dog"]).name_of(label)


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [(("a", "a"), (), "a appears twice"), (("a", "b"), (1, 1), "1 appears twice"), (("a",), (1, 2), "one id per name")],
)
def test_class_map_rejects_duplicates_and_wrong_counts(
    names: tuple[str, ...], ids: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        ClassMap(names, ids)


def test_seeds_depend_only_on_their_arguments() -> None:
    seeds = {derive_seed(a, b, c) for a in range(4) for b in range(4) for c in range(20)}
    assert len(seeds) == 4 * 4 * 20
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with atomic_write(path) as file:
        file.write(b"old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write(b"new, but only half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_json_rejects_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "ä", "none": None})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "ä", "none": None}
    for results in ([], [{"a": 1}], [{"a": 1}, {"b": [2, 3]}]):
        write_json(tmp_path / "list.json", results)
        text = (tmp_path / "list.json").read_text(encoding="utf-8")
        assert json.loads(text) == results
        assert len(text.splitlines()) == max(3, len(results) + 2)
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"nan": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["none"] is None


@pytest.mark.parametrize("count", [0, 1, 3])
def test_detections_above_a_score(count: int) -> None:
    masks = np.zeros((count, 6, 8), np.uint8)
    for i in range(count):
        masks[i, i : i + 2, 1:3] = 1
    scores = np.linspace(0.9, 0.1, count, dtype=np.float32)
    prediction = Prediction(
        (6, 8),
        np.zeros((count, 4), np.float32),
        np.ones(count, np.int64),
        scores,
        [mask_to_rle(mask) for mask in masks],
    )
    assert np.array_equal(prediction.masks(), masks)
    filtered = prediction.above(0.5)
    assert len(filtered) == (scores >= 0.5).sum()
    assert np.array_equal(filtered.masks(), masks[: len(filtered)])
    assert len(prediction.above(0.0)) == count


def test_prediction_without_masks_and_class_prediction() -> None:
    empty = Prediction((6, 8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert empty.masks().shape == (0, 6, 8)
    assert ClassPrediction(np.array([0.2, 0.7, 0.1], np.float32)).class_index == 1


def test_labels_of_several_fields_are_consecutive() -> None:
    colour = ClassPrediction(np.array([0.2, 0.7, 0.1], np.float32))
    shape = ClassPrediction(np.array([0.6, 0.4], np.float32))
    prediction = FieldPredictions({"colour": colour, "shape": shape})
    fields = (LabelField("colour", ClassMap(("red", "blue", "grey"))), LabelField("shape", ClassMap(("round", "flat"))))
    class_map = joined(fields)
    assert [class_map.name_of(label) for label in prediction.labels()] == ["colour=blue", "shape=round"]
    assert prediction["shape"] is shape
    assert [LabelField.from_dict(field.to_dict()) for field in fields] == list(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "label fields none: two or more are needed"),
        ([("a", 2)], "two or more are needed"),
        ([("a", 2), ("a", 2)], "each with a unique name"),
        ([("a", 2), ("", 2)], "each with a unique name"),
        ([("a", 2), ("b", 0)], "label field b has no class"),
    ],
)
def test_invalid_fields_cannot_be_joined(fields: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        joined([LabelField(name, ClassMap(tuple("xyz"[:count]))) for name, count in fields])
