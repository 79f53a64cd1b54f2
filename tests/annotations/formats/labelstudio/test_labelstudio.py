"""Label Studio: masks, keypoints of objects, and choices as labels of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, find_format, read
from detseg.errors import DataError
from detseg.masks import rle_to_mask
from tests.annotations.formats.labelstudio.test_brush import encode
from tests.real_exports import sets


def point(name: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    value = {"x": x / sets.WIDTH * 100, "y": y / sets.HEIGHT * 100, "width": 0.5, "keypointlabels": [name]}
    return {"type": "keypointlabels", "value": value, **more}


def choice(name: str, *choices: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "value": {"choices": list(choices)}}


def labels(table: AnnotationTable) -> dict[str, list[str]]:
    return {record.path.name: record.class_names(table.class_map) for record in table}


def test_brush(tmp_path: Path) -> None:
    mask = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    mask[10:30, 20:60] = 255
    value = {"format": "rle", "rle": encode(np.repeat(mask.ravel(), 4)), "brushlabels": ["bolt"]}
    sets.labelstudio(tmp_path, {"a.jpg": [{"type": "brushlabels", "value": value}]})
    table = read(tmp_path)
    np.testing.assert_array_equal(rle_to_mask(table[0].segmentations[0]), mask > 0)
    assert table.boxes_xywh.tolist() == [[20, 10, 40, 20]]


def test_keypoints_belong_to_their_parent(tmp_path: Path) -> None:
    first, second = sets.rectangle("bolt", 20, 20, 50, 50), sets.rectangle("nut", 60, 20, 90, 50)
    results = [
        {**first, "id": "a"},
        {**second, "id": "b"},
        point("tip", 30, 30, parentID="b"),
        point("top", 31, 32, parentID="a"),
        point("tip", 33, 34, parentID="a"),
        point("tip", 1, 2),
    ]
    sets.labelstudio(tmp_path, {"a.jpg": results})
    table = read(tmp_path)
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("tip", "top")
    assert table.keypoints is not None
    np.testing.assert_allclose(table.keypoints, [[[33, 34, 2], [31, 32, 2]], [[30, 30, 2], [0, 0, 0]]], atol=1e-9)
    assert table.notes.counts["keypoint without a parent region left out"] == 1
    sets.labelstudio(tmp_path, {"a.jpg": [*results, point("tip", 9, 9, parentID="b")]})
    with pytest.raises(DataError, match="tip occurs twice in one object"):
        read(tmp_path)


def test_keypoints_alone_are_one_object(tmp_path: Path) -> None:
    sets.labelstudio(tmp_path, {"a.jpg": [point("tip", 20, 20), point("top", 50, 60)], "b.jpg": []})
    table = read(tmp_path)
    assert table.class_map.names == ("object",)
    assert table.keypoints is not None
    np.testing.assert_allclose(table.keypoints, [[[20, 20, 2], [50, 60, 2]]], atol=1e-9)


def test_choices_are_label_fields(tmp_path: Path) -> None:
    sets.labelstudio(tmp_path, {"a.jpg": [choice("state", "good")], "b.jpg": [choice("state", "bad")], "c.jpg": []})
    assert labels(read(tmp_path)) == {"a.jpg": ["good"], "b.jpg": ["bad"]}  # c.jpg is not labelled, noted
    both = {"a.jpg": [choice("state", "good"), choice("side", "left")], "b.jpg": [choice("state", "bad")]}
    sets.labelstudio(tmp_path, both)
    table = read(tmp_path)
    assert [field.name for field in table.label_fields] == ["state", "side"]
    assert labels(table)["a.jpg"] == ["state=good", "side=left"]


def test_several_choices_of_a_field(tmp_path: Path) -> None:
    sets.labelstudio(tmp_path, {"a.jpg": [choice("faults", "rust", "crack")], "b.jpg": [choice("faults", "rust")]})
    assert labels(read(tmp_path)) == {"a.jpg": ["rust=1", "crack=1"], "b.jpg": ["rust=1", "crack=0"]}


def test_choices_of_json_min(tmp_path: Path) -> None:
    sets.image(tmp_path / "a.jpg")
    sets.image(tmp_path / "b.jpg")
    usual = {"annotator": 1, "annotation_id": 1, "lead_time": 2.5, "created_at": "2024"}
    rows = [{**usual, "image": f"/data/upload/3/{name}.jpg", "id": name, "choice": name * 3} for name in "ab"]
    path = sets.put(tmp_path / "min.json", json.dumps(rows))
    assert find_format(path).format == "labelstudio"
    assert labels(read(tmp_path)) == {"a.jpg": ["aaa"], "b.jpg": ["bbb"]}


def test_a_text_task(tmp_path: Path) -> None:
    task = {"id": 7, "data": {"text": "words"}, "annotations": [{"result": [choice("mood", "good")]}]}
    sets.put(tmp_path / "a.json", json.dumps([task]))
    with pytest.raises(DataError, match=r"a.json, task 7: no image in its data \(text\)"):
        read(tmp_path)
