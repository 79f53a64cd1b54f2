"""Supervisely: holes, bitmaps within limits, keypoint graphs, tags as labels and splits."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import find_format, read
from detseg.annotations.formats.supervisely import figures
from detseg.errors import DataError
from detseg.masks import rasterize, rle_to_mask
from tests.real_exports import sets
from tests.real_exports.cases_supervisely import BOLT, bitmap, colours, palette

OUTER = [(3.5, 2), (60, 5), (95, 60), (-4, 50)]
HOLES = [[(20, 20), (30, 20), (30, 30), (20, 30)], [(40, 10), (200, 10), (45, 30)]]


def test_holes(tmp_path: Path) -> None:
    sets.supervisely(tmp_path, {"a.jpg": [sets.figure("bolt", "polygon", *OUTER, interior=HOLES)]})
    size = sets.HEIGHT, sets.WIDTH
    expected = rasterize([np.array(OUTER)], size, size)
    for hole in HOLES:
        expected &= 1 - rasterize([np.array(hole, np.float64)], size, size)
    np.testing.assert_array_equal(rle_to_mask(read(tmp_path)[0].segmentations[0]), expected)


@pytest.mark.parametrize("pack", [palette, colours])
def test_bitmap(pack: object, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((9, 7)) < 0.5
    sets.supervisely(tmp_path, {"a.jpg": [bitmap(pack(mask), 30, 20)]})  # type: ignore[operator]
    expected = np.zeros((sets.HEIGHT, sets.WIDTH), bool)
    expected[20:29, 30:37] = mask
    np.testing.assert_array_equal(rle_to_mask(read(tmp_path)[0].segmentations[0]), expected)


def test_a_bitmap_that_unpacks_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_UNPACKED", 2**20)
    bomb = base64.b64encode(zlib.compress(bytes(2**21))).decode()
    sets.supervisely(tmp_path, {"a.jpg": [bitmap(bomb)]})
    with pytest.raises(DataError, match="unpack to more than 1 MiB"):
        read(tmp_path)


def test_graph(tmp_path: Path) -> None:
    nodes = {"u1": {"label": "tip"}, "u2": {"label": "top"}, "u3": {"label": "side"}}
    graph = {"nodes": nodes, "edges": [{"src": "u1", "dst": "u2"}, {"src": "u1", "dst": "gone"}]}
    classes = [{"title": "man", "shape": "graph", "geometry_config": graph}]
    placed = {"u2": {"loc": [50, 60]}, "u1": {"loc": [20, 20]}, "u3": {"loc": [1, 1], "disabled": True}}
    man = {"classTitle": "man", "geometryType": "graph", "nodes": placed}
    sets.supervisely(tmp_path, {"a.jpg": [man]}, classes)
    table = read(tmp_path)
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("tip", "top", "side")
    assert table.keypoint_schema.skeleton == ((0, 1),)
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [[[20, 20, 2], [50, 60, 2], [0, 0, 0]]]
    assert table.boxes_xywh.tolist() == [[20, 20, 30, 40]]


def test_tags_are_labels_and_splits(tmp_path: Path) -> None:
    for name, split, weather in (("a", "train", "sunny"), ("b", "val", "rain")):
        tags = [{"name": split, "value": None}, {"name": "weather", "value": weather}, {"name": "floor", "value": 2.0}]
        sets.supervisely(tmp_path, {f"{name}.jpg": []}, tags=tags)
    table = read(tmp_path)
    assert [record.class_names(table.class_map) for record in table] == [
        ["weather=sunny", "floor=2"], ["weather=rain", "floor=2"],
    ]  # fmt: skip
    assert table.split.tolist() == ["train", "val"]


def test_datasets_are_splits(tmp_path: Path) -> None:
    sets.supervisely(tmp_path, {"train/a.jpg": [BOLT], "val/b.jpg": [BOLT]})
    assert read(tmp_path).split.tolist() == ["train", "val"]
    assert find_format(tmp_path / "train").explanation == "Supervisely: 1 JSON files"
    assert len(read(tmp_path / "train")) == len(read(tmp_path / "train/ann/a.jpg.json", images=tmp_path)) == 1


def test_control_other_json(tmp_path: Path) -> None:
    sets.put(tmp_path / "ann/a.json", json.dumps({"size": 3}))
    sets.image(tmp_path / "img/a.jpg")
    with pytest.raises(DataError, match="no known data set"):
        read(tmp_path)
