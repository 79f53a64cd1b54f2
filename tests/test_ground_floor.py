"""Boxes, classes, seeds, files, predictions: the small values that everything stands on."""

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
def test_boxes_there_and_back(boxes: np.ndarray) -> None:
    assert np.array_equal(xyxy_to_xywh(xywh_to_xyxy(boxes)), boxes)
    xyxy = xywh_to_xyxy(boxes)
    there = scale_xyxy(xyxy, (50, 80), (100, 40))
    assert there.shape == boxes.shape
    assert np.allclose(scale_xyxy(there, (100, 40), (50, 80)), xyxy)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        ([0, 0, 10, 20], [0, 0, 10, 20]),
        ([-3, -4, 5, 6], [0, 0, 5, 6]),
        ([5, 5, 15.5, 20.001], [5, 5, 10, 20]),
        ([12, 25, 15, 30], [10, 20, 10, 20]),
    ],
)
def test_clip_leaves_no_negative_box(box: list[float], clipped: list[float]) -> None:
    found = clip_xyxy(np.array([box], np.float32), (20, 10))
    assert found.dtype == np.float32
    assert np.allclose(found, [clipped])


def test_class_map_keeps_three_numbers_apart() -> None:
    classes = ClassMap(("cat", "dog"), (17, 0))
    assert (len(classes), classes.num_classes) == (2, 3)
    assert (classes.label_of("dog"), classes.name_of(1), classes.category_id_of(2)) == (2, "cat", 0)
    assert classes.labels_by_category_id() == {17: 1, 0: 2}
    assert ClassMap.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes


def test_classes_are_selected_in_the_order_asked_for() -> None:
    classes = ClassMap(("cat", "dog", "ant"), (17, 0, 5))
    assert classes.select(None, "a.json") is classes
    assert classes.select(["ant", "cat"], "a.json") == ClassMap(("ant", "cat"), (5, 17))
    with pytest.raises(DataError, match=r"a\.json: no class 'bee'; it has cat, dog, ant"):
        classes.select(["cat", "bee"], "a.json")
    with pytest.raises(DataError, match="it has none"):
        ClassMap(()).select(["bee"], "a.json")


def test_class_map_without_classes() -> None:
    assert (len(ClassMap(())), ClassMap(()).num_classes) == (0, 1)


@pytest.mark.parametrize("label", [0, -1, 3])
def test_label_0_is_background_and_never_named(label: int) -> None:
    with pytest.raises(DataError, match=r"1\.\.2"):
        ClassMap.from_names(["cat", "dog"]).name_of(label)


@pytest.mark.parametrize(
    ("names", "ids", "said"),
    [(("a", "a"), (), "a appears twice"), (("a", "b"), (1, 1), "1 appears twice"), (("a",), (1, 2), "one id")],
)
def test_class_map_refuses(names: tuple[str, ...], ids: tuple[int, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        ClassMap(names, ids)


def test_seeds_depend_on_every_part_and_on_nothing_else() -> None:
    seeds = {derive_seed(a, b, c) for a in range(4) for b in range(4) for c in range(20)}
    assert len(seeds) == 4 * 4 * 20
    assert derive_seed(1, 2, 3) == derive_seed(1, 2, 3)
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_write_that_fails_leaves_no_trace(tmp_path: Path) -> None:
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


def test_json_has_no_nan(tmp_path: Path) -> None:
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
def test_prediction_above_a_score(count: int) -> None:
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
    kept = prediction.above(0.5)
    assert len(kept) == (scores >= 0.5).sum()
    assert np.array_equal(kept.masks(), masks[: len(kept)])
    assert len(prediction.above(0.0)) == count


def test_prediction_without_masks_and_class_prediction() -> None:
    empty = Prediction((6, 8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))
    assert empty.masks().shape == (0, 6, 8)
    assert ClassPrediction(np.array([0.2, 0.7, 0.1], np.float32)).class_index == 1


def test_labels_of_several_fields_count_on() -> None:
    one = ClassPrediction(np.array([0.2, 0.7, 0.1], np.float32))
    two = ClassPrediction(np.array([0.6, 0.4], np.float32))
    prediction = FieldPredictions({"colour": one, "shape": two})
    fields = (LabelField("colour", ClassMap(("red", "blue", "grey"))), LabelField("shape", ClassMap(("round", "flat"))))
    names = joined(fields)
    assert [names.name_of(label) for label in prediction.labels()] == ["colour=blue", "shape=round"]
    assert prediction["shape"] is two
    assert [LabelField.from_dict(field.to_dict()) for field in fields] == list(fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "label fields none: two or more are needed"),
        ([("a", 2)], "two or more are needed"),
        ([("a", 2), ("a", 2)], "each with a name of its own"),
        ([("a", 2), ("", 2)], "each with a name of its own"),
        ([("a", 2), ("b", 0)], "label field b has no class"),
    ],
)
def test_fields_that_cannot_be_joined(fields: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        joined([LabelField(name, ClassMap(tuple("xyz"[:count]))) for name, count in fields])
