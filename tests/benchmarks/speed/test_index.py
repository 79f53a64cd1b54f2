"""Test the index against pycocotools on a small file: equal content, plausible rows, a check that can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detseg.benchmarks.speed.index import check_equal, compare, measure, write_index
from detseg.errors import DataError

pytestmark = pytest.mark.slow


def test_rows_of_a_small_index() -> None:
    rows = compare(None, images=200, instances=1000, turns=1, workers=1)
    names = ["load 200 images, 1,000 instances", "memory of 200 images, 1,000 instances", "memory with 1 workers"]
    assert [row.name for row in rows] == names[: len(rows)]
    assert rows[0].ratio > 0
    assert [row.unit for row in rows] == ["s", "MB", "MB"][: len(rows)]


def test_a_different_index_is_detected(tmp_path: Path) -> None:
    path = write_index(tmp_path / "a.json", 200, 1000)
    ours, theirs = measure("ours", path, 0), measure("theirs", path, 0)
    check_equal(ours, theirs)
    data = json.loads(path.read_text())
    crowd = next(value for value in data["annotations"] if value["iscrowd"])
    polygon = next(value for value in data["annotations"] if not value["iscrowd"])
    assert crowd["segmentation"]["size"]
    for name, change in {
        "boxes": {"bbox": [*polygon["bbox"][:3], polygon["bbox"][3] / 2]},
        "areas": {"area": 1.5},
        "classes": {"category_id": 91 - polygon["category_id"]},
        "outlines": {"segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0]]},
    }.items():
        if change.get("category_id") in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}:
            continue
        other = [{**value, **change} if value is polygon else value for value in data["annotations"]]
        changed = tmp_path / f"{name}.json"
        changed.write_text(json.dumps({**data, "annotations": other}))
        with pytest.raises(DataError, match=f"differs .* in {name}$"):
            check_equal(ours, measure("theirs", changed, 0))
    with pytest.raises(DataError, match="in images"):
        check_equal(replace(ours, content={**ours.content, "images": "3"}), theirs)


def test_the_file_is_like_a_coco_file(tmp_path: Path) -> None:
    data = json.loads(write_index(tmp_path / "a.json", 300, 6000).read_text())
    assert [image["id"] for image in data["images"]] != sorted(image["id"] for image in data["images"])
    polygons = [value["segmentation"] for value in data["annotations"] if not value["iscrowd"]]
    vertices = [sum(map(len, rings)) / 2 for rings in polygons]
    assert 23 < np.mean(vertices) < 27
    assert 0.005 < 1 - len(polygons) / len(data["annotations"]) < 0.02
    assert {len(rings) for rings in polygons} == {1, 2}
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    for value in data["annotations"]:
        x, y, w, h = value["bbox"]
        width, height = sizes[value["image_id"]]
        assert 0 <= x < x + w <= width + 1e-9
        assert 0 <= y < y + h <= height + 1e-9
