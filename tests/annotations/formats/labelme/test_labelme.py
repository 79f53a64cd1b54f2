"""LabelMe: cases that are specific to this format; common cases are in shared/test_shapes.py."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.labelme.read import find_labelme, read_labelme
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.masks import rle_to_mask

RING = [[2, 3], [12, 3], [12, 9], [2, 9]]
HW = (20, 30)


def shape(**changes: Any) -> dict[str, Any]:
    return {"label": "cell", "points": RING, "group_id": None, "shape_type": "polygon", "flags": {}, **changes}


def write_file(folder: Path, *shapes: Any, name: str = "a.json", **changes: Any) -> None:
    value = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None, **changes}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))


def read(folder: Path, *shapes: Any, **changes: Any) -> AnnotationTable:
    Image.new("RGB", HW[::-1]).save(folder / "a.png")
    write_file(folder, *shapes, **changes)
    return read_labelme(folder)


def png(crop: Any) -> str:
    return base64.b64encode(cv2.imencode(".png", np.asarray(crop, np.uint8) * 255)[1].tobytes()).decode()


@pytest.mark.parametrize(
    ("shapes", "boxes", "masks", "notes"),
    [
        ([], [], [], []),
        ([shape()], [[2, 3, 10, 6]], [True], []),
        ([shape(shape_type=None)], [[2, 3, 10, 6]], [True], []),
        ([shape(shape_type="rectangle", points=[[12, 3], [2, 9]])], [[2, 3, 10, 6]], [False], []),
        ([shape(shape_type="rectangle")], [[2, 3, 10, 6]], [False], []),  # X-AnyLabeling: four corners
        ([shape(shape_type="circle", points=[[10, 10], [10, 15]])], [[5, 5, 10, 10]], [True], []),
        ([shape(), shape(shape_type="line")], [[2, 3, 10, 6]], [True], ["neither box nor polygon"]),
        ([shape(points=[[1, 2], [5, 8]])], [[1, 2, 4, 6]], [False], ["fewer than three", "without a mask"]),
        ([shape(), shape(points=[])], [[2, 3, 10, 6]], [True], ["fewer than three", "without a mask", "are missing"]),
        ([shape(group_id=1), shape(group_id=1, points=[[20, 10], [25, 10], [25, 15]])], [[2, 3, 23, 12]], [True], []),
        ([shape(group_id=1), shape(group_id=1, label="axon")], [[2, 3, 10, 6]] * 2, [True] * 2, []),
        ([shape(group_id=1), shape(group_id=2)], [[2, 3, 10, 6]] * 2, [True] * 2, []),
        (
            [shape(group_id=1), shape(group_id=1, shape_type="rectangle", points=[[0, 0], [20, 12]])],
            [[0, 0, 20, 12]],
            [True],
            ["rectangle and polygon in one group"],
        ),
    ],
)
def test_shapes(tmp_path: Path, shapes: Any, boxes: Any, masks: list[bool], notes: list[str]) -> None:
    table = read(tmp_path, *shapes)
    np.testing.assert_allclose(table.boxes_xywh, np.reshape(boxes, (-1, 4)), atol=1e-9)
    assert table.segmentation.present().tolist() == masks
    assert len(table.notes.counts) == len(notes)
    for note, line in zip(notes, table.notes.lines(), strict=True):
        assert note in line


def test_rings_of_one_group_are_one_mask(tmp_path: Path) -> None:
    other = [[20, 10], [25, 10], [25, 15], [20, 15]]
    table = read(tmp_path, shape(group_id=3), shape(group_id=3, points=other))
    assert [ring.tolist() for ring in table.segmentation[0]] == [RING, other]
    assert table.area.tolist() == [85]


def test_mask_shapes(tmp_path: Path) -> None:
    crop = np.array([[0, 1, 1], [1, 1, 0]])
    mask = shape(shape_type="mask", points=[[4, 5], [6, 6]], mask=png(crop))
    table = read(tmp_path, mask, imageHeight=20, imageWidth=30)
    expected = np.zeros(HW, np.uint8)
    expected[5:7, 4:7] = crop
    segmentation = table.segmentation[0]
    assert isinstance(segmentation, dict)
    np.testing.assert_array_equal(rle_to_mask(segmentation), expected)
    assert table.boxes_xywh.tolist() == [[4, 5, 3, 2]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": [shape(points=[[1, 2, 3]])]}, r"a.json: 1 x shapes.points: expected a list of 2 numbers each"),
        ({"shapes": [shape(points=[[1e9, 2], [3, 4], [5, 6]])]}, "a.json, shape 1 .cell.*coordinate 1e"),
        ({"shapes": [shape(shape_type="circle")]}, "a circle of 4 points, expected 2"),
        ({"shapes": [shape(shape_type="mask", points=[[1, 1], [2, 2]], mask="AA==")]}, "imageHeight and imageWidth"),
        (
            {
                "shapes": [shape(shape_type="mask", points=[[1, 1], [2, 2]], mask="?")],
                "imageHeight": 20,
                "imageWidth": 30,
            },
            "not base64",
        ),
        (
            {
                "shapes": [shape(shape_type="mask", points=[[29, 1], [30, 1]], mask=png([[1, 1]]))],
                "imageHeight": 20,
                "imageWidth": 30,
            },
            "extends beyond the image of 30 x 20",
        ),
        ({"imageHeight": 20.5, "imageWidth": 30}, "imageHeight 20.5 and imageWidth 30 are not a valid size"),
        ({"shapes": None}, "a.json: 1 x shapes: expected a list of objects, got null"),
        ({"imageHeight": 10**400, "imageWidth": 30}, "are not a valid size"),
    ],
)
def test_bad_files(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, **{"shapes": [], **changes})


@pytest.mark.parametrize("path", [None, "", "other.png", "..\\img\\other.png"])
def test_image_with_the_name_of_the_json_file(tmp_path: Path, path: str | None) -> None:
    table = read(tmp_path, shape(), imagePath=path)
    assert table.media.tolist() == ["a.png"]
    assert len(table.notes.counts) == bool(path)


def test_two_files_of_one_image(tmp_path: Path) -> None:
    write_file(tmp_path, name="b.json")
    with pytest.raises(DataError, match=r"the image a.png is annotated in a.json and in b.json"):
        read(tmp_path, shape())


def test_an_embedded_image_is_not_extracted(tmp_path: Path) -> None:
    write_file(tmp_path, shape(), imageData=png([[1]]))
    with pytest.raises(DataError, match=r"1 of 1 images are not in .*: a.png; add the files"):
        read_labelme(tmp_path)


def test_other_json_files_are_noted(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"colour": "red"}')
    table = read(tmp_path, shape(difficult=True))
    assert table.notes.counts == {"JSON file without shapes left out": 1}
    assert table.difficult.tolist() == [True]
    with pytest.raises(DataError, match=r"settings\.json"):
        read_labelme(tmp_path / "settings.json")


def test_format_detection(tmp_path: Path) -> None:
    def detected() -> str | None:
        detected = find_labelme(tmp_path, list_files(tmp_path))
        return detected and detected.explanation

    assert detected() is None
    write_file(tmp_path, shape(), name="deep/er/a.json")
    assert detected() == "LabelMe: 1 JSON files"
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": []}')
    assert detected() is None


XML = """<annotation><filename>a.png</filename><folder/><object><name>cell</name><deleted>0</deleted><id>0</id>
<polygon>{points}</polygon></object>{extra}<imagesize><nrows>20</nrows><ncols>30</ncols></imagesize></annotation>"""
POINTS = "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in RING)


@pytest.mark.parametrize(
    ("extra", "boxes", "masks", "notes"),
    [
        ("", [[2, 3, 10, 6]], [True], 0),
        (f"<object><name>x</name><deleted>1</deleted><polygon>{POINTS}</polygon></object>", [[2, 3, 10, 6]], [True], 1),
        (
            f"<object><name>x</name><type>bounding_box</type><polygon>{POINTS}</polygon></object>",
            [[2, 3, 10, 6]] * 2,
            [True, False],
            0,
        ),
    ],
)
def test_xml_of_the_web_tool(tmp_path: Path, extra: str, boxes: Any, masks: list[bool], notes: int) -> None:
    Image.new("RGB", HW[::-1]).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(XML.format(points=POINTS, extra=extra))
    assert find_labelme(tmp_path, list_files(tmp_path)) == Detected("LabelMe (web tool): 1 XML files")
    table = read_labelme(tmp_path)
    assert table.boxes_xywh.tolist() == boxes
    assert table.segmentation.present().tolist() == masks
    assert len(table.notes.counts) == notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (XML.format(points="<pt><x>1</x></pt>", extra=""), "a.xml, object 0 .cell.: <y> '' is not a finite number"),
        (XML.format(points=POINTS, extra="<object><name>b</name></object>"), "neither polygon nor painted mask"),
        (
            XML.format(points=POINTS, extra="<object><segm><mask>/etc/m.png</mask></segm></object>"),
            "its mask m.png was found 0 times",
        ),
        ("<annotations/>", "the root is <annotations>"),
        ("<annotation><object>", "not well-formed"),
    ],
)
def test_bad_xml(tmp_path: Path, text: str, message: str) -> None:
    Image.new("RGB", HW[::-1]).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_labelme(tmp_path)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 1), (np.uint8, 255), (np.uint16, 1), (np.uint16, 200)])
def test_a_painted_mask_of_16_bits_is_not_empty(tmp_path: Path, dtype: type, value: int) -> None:
    painted = np.zeros(HW, dtype)
    painted[5:9, 10:17] = value
    Image.new("RGB", HW[::-1]).save(tmp_path / "a.png")
    (tmp_path / "Masks").mkdir()
    Image.fromarray(painted).save(tmp_path / "Masks" / "m.png")
    extra = "<object><name>b</name><segm><mask>m.png</mask></segm></object>"
    (tmp_path / "a.xml").write_text(XML.format(points=POINTS, extra=extra))
    assert read_labelme(tmp_path).boxes_xywh[1].tolist() == [10, 5, 7, 4]


def test_pascal_voc_is_not_detected_as_labelme(tmp_path: Path) -> None:
    voc = XML.format(points=POINTS, extra="<object><bndbox><xmin>1</xmin></bndbox></object>")
    (tmp_path / "a.xml").write_text(voc)
    assert find_labelme(tmp_path, ["a.xml"]) is None
    (tmp_path / "a.xml").write_text("<annotation><size><width>3</width></size></annotation>")
    assert find_labelme(tmp_path, ["a.xml"]) is None


def test_real_export(shared_data: Path) -> None:
    folder = shared_data / "datumaro_assets" / "assets" / "labelme_dataset"
    assert find_labelme(folder, list_files(folder)) == Detected("LabelMe (web tool): 1 XML files")
    table = read_labelme(folder)
    assert table.media.tolist() == ["Images/subset1/img1.png"]
    assert [table.class_map.name_of(int(label)) for label in table.label] == [
        "window", "license plate", "o1", "q1", "b1", "m1", "hg",
    ]  # fmt: skip
    assert table.segmentation.present().sum() == 6  # one is a box
    assert table.boxes_xywh[:2].tolist() == [[43, 34, 2, 3], [58, 67, 5, 2]]  # a polygon; the painted pixels
