"""VIA JSON: cases that are specific to this format; common cases are in shared/test_shapes.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations import read as read_any
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.via.read import find_via, read_via
from detseg.annotations.listing import list_files
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

RECT = {"name": "rect", "x": 2, "y": 3, "width": 10, "height": 6}
RING = {"name": "polygon", "all_points_x": [2, 12, 12], "all_points_y": [3, 3, 9]}


def region(shape: Any = None, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": RECT if shape is None else shape, "region_attributes": attributes}


def read(folder: Path, regions: Any, project: bool = False) -> AnnotationTable:
    Image.new("RGB", (30, 20)).save(folder / "a.png")
    value: Any = {"a.png99": {"filename": "a.png", "size": 99, "regions": regions, "file_attributes": {}}}
    if project:
        value = {"_via_settings": {}, "_via_img_metadata": value, "_via_attributes": {}, "_via_image_id_list": []}
    (folder / "via.json").write_text(json.dumps(value))
    assert find_via(folder, list_files(folder)) == Detected("VIA: via.json")
    return read_via(folder)


@pytest.mark.parametrize(
    ("shape", "boxes", "masks", "note"),
    [
        (RECT, [[2, 3, 10, 6]], [False], ""),
        (RING, [[2, 3, 10, 6]], [True], ""),
        ({**RING, "all_points_x": [2, 12], "all_points_y": [3, 9]}, [[2, 3, 10, 6]], [False], "fewer than three"),
        ({"name": "circle", "cx": 10, "cy": 10, "r": 4.5}, [[5.5, 5.5, 9, 9]], [True], ""),
        ({"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2}, [[6, 8, 8, 4]], [True], ""),
        ({"name": "ellipse", "cx": 10, "cy": 10, "rx": 4, "ry": 2, "theta": np.pi / 2}, [[8, 6, 4, 8]], [True], ""),
        ({"name": "circle", "cx": 10, "cy": 10, "r": -4.5}, [[5.5, 5.5, 9, 9]], [True], "negative radius"),
    ],
)
@pytest.mark.parametrize("project", [True, False])
def test_shapes(tmp_path: Path, shape: Any, boxes: Any, masks: list[bool], note: str, project: bool) -> None:
    table = read(tmp_path, [region(shape, label="cell")], project)
    np.testing.assert_allclose(table.boxes_xywh, np.reshape(boxes, (-1, 4)), atol=1e-9)
    assert table.segmentation.present().tolist() == masks
    assert bool(table.notes) is bool(note)
    assert note in " ".join(table.notes.lines())


@pytest.mark.parametrize("shape", [{"name": "point", "cx": 10, "cy": 10}, {**RING, "name": "polyline"}])
def test_other_shapes_are_lost(tmp_path: Path, shape: Any) -> None:
    table = read(tmp_path, [region(RECT, label="cell"), region(shape, label="cell")])
    assert table.boxes_xywh.tolist() == [[2, 3, 10, 6]]
    assert table.lost == LostObjects(1, 2, 1)
    assert "neither box nor polygon" in table.notes.lines()[0]
    with pytest.raises(DataError, match="no image has an object that can be used; lost: 1 of 1 object in 1 image"):
        read(tmp_path, [region(shape, label="cell")])


@pytest.mark.parametrize("regions", [[], {}, {"0": region(type="x"), "7": region(type="x")}])
def test_regions_of_version_1(tmp_path: Path, regions: Any) -> None:
    assert len(read(tmp_path, regions).label) == len(regions)


@pytest.mark.parametrize(
    ("regions", "classes", "note"),
    [
        ([region(name="b"), region(name="a")], ["b", "a"], ""),
        ([region(colour="red", Class="b")], ["b"], "used as the class: Class (via.json); also filled: colour"),
        ([region(type="t", label="b")], ["b"], "used as the class: label (via.json); also filled: type"),
        ([region(name="not_defined", type="b"), region(type={"c": True})], ["b", "c"], ""),
        ([region(name={"x": True, "y": True}, type="b"), region(type="c")], ["b", "c"], ""),
        ([region(label="", type="b")], ["b"], ""),
        ([region(label="b", type="t"), region(type="u"), region(type="u")], ["t", "u", "u"], "also filled: label"),
        ([region(label="unknown", colour="b")], ["b"], "region attribute used as the class: colour"),
        ([region(label="unknown")], ["unknown"], ""),
        ([region(label=""), region(label="not_defined")], ["object"] * 2, "--rename object=NAME renames it"),
        ([region(name=f"no {i}", kind="b") for i in range(20)], ["b"] * 20, "used as the class: kind"),
        ([region(name=f"no {i}") for i in range(20)], [f"no {i}" for i in range(20)], ""),
        ([region(organ="b"), region(organ="c", remark="x")], ["b", "c"], "region attribute used as the class: organ"),
        ([region(), region()], ["object", "object"], "all instances have the class 'object'"),
        ([region(name="b"), region()], ["b"], "without a class dropped"),
        ([region(name="b"), region(name="undefined")], ["b"], "read as no class"),
        ([region(name={"b": True, "c": False})], ["b"], ""),
        ([region(name={}), region(name={"c": True})], ["c"], "without a class dropped"),
        ([region(name=3)], ["3"], ""),
    ],
)
def test_class_attribute(tmp_path: Path, regions: Any, classes: list[str], note: str) -> None:
    table = read(tmp_path, regions)
    assert [table.class_map.name_of(int(label)) for label in table.label] == classes
    assert bool(table.notes) is bool(note)
    assert note in " ".join(table.notes.lines())


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (
            [region(name={"a": True, "b": True})],
            "via.json, a.png, region 0: name has several values .a, b.; select only one",
        ),
        ([region({"name": "rect", "x": 1, "y": 2, "width": 3}, name="a")], r"region 0 \(rect\): no height"),
        ([region({**RING, "all_points_x": [1]}, name="a")], "1 x and 3 y values"),
        (
            [region({"name": "rect", "x": "left"}, name="a")],
            r'1 x regions.shape_attributes.x: expected a number, got "left" \(a.png',
        ),
        ([{"region_attributes": {}}], "1 x regions.shape_attributes: missing"),
        (
            [region({**RECT, "x": 1e308, "width": 1e308}, name="a")],
            "region 0 .*not all of these numbers are finite",
        ),
    ],
)
def test_bad_files(tmp_path: Path, regions: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, regions)


def test_a_project_without_images(tmp_path: Path) -> None:
    (tmp_path / "via.json").write_text('{"_via_settings": {}}')
    with pytest.raises(DataError, match="a VIA project without _via_img_metadata; save the project again"):
        read_via(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"images": [], "annotations": []}', '{"shapes": []}', "[1, 2]"])
def test_other_json_is_not_detected_as_via(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert find_via(tmp_path, ["a.json"]) is None


def images_with(folder: Path, *attributes: Any) -> Path:
    entries = {}
    for number, values in enumerate(attributes):
        Image.new("RGB", (30, 20)).save(folder / f"{number}.png")
        entries[f"{number}.png9"] = {"filename": f"{number}.png", "size": 9, "regions": [], "file_attributes": values}
    (folder / "via.json").write_text(json.dumps(entries))
    return folder


BUILT_IN = {"caption": "", "public_domain": "no", "image_url": ""}


def test_classes_of_images_without_regions(tmp_path: Path) -> None:
    data = images_with(tmp_path, {"class": "cat", **BUILT_IN}, {"class": {"dog": True}}, {"class": ""}, "odd")
    table = read_any(data)
    assert [record.class_names(table.class_map) for record in table] == [["cat"], ["dog"]]
    assert table.notes.counts == {"image without a label left out": 2}
    assert len(read_any(data, classes=["dog"])) == 1
    assert read_any(data, rename="dog=cat").class_map.names == ("cat",)
    with pytest.raises(DataError, match="this file attribute does not exist; with values: class: cat, dog"):
        read_any(data, class_attribute="clas")


@pytest.mark.parametrize(
    ("attributes", "note"),
    [
        ([BUILT_IN, BUILT_IN], ""),
        ([{"class": "cat"}, {"class": "cat"}], ""),
        ([{"season": "winter"}, {"season": "summer"}], r"season \(--class-attribute season reads it as the class"),
    ],
)
def test_images_without_regions_are_negative(tmp_path: Path, attributes: Any, note: str) -> None:
    """Control: only different values under a usual name, or a stated name, are classes of images."""
    table = read_any(images_with(tmp_path, *attributes))
    assert len(table) == 2
    assert not table.has_class_index
    lines = "\n".join(table.notes.lines())
    assert re.search(note, lines) if note else not lines
    if note:
        assert read_any(tmp_path, class_attribute="season").class_map.names == ("summer", "winter")
