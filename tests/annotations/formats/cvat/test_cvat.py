"""CVAT XML: cases that are specific to this format; common cases are in shared/test_shapes.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detseg.annotations.formats.cvat.read import find_cvat, read_cvat
from detseg.annotations.formats.format import Detected
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.masks import rle_to_mask

HW = (20, 30)
LABELS = "<label><name>cell</name></label><label><name>axon</name></label>"


def xml(shapes: str, labels: str = LABELS, image: str = 'id="0" name="a.png" width="30" height="20"') -> str:
    return (
        f"<annotations><version>1.1</version><meta><task><labels>{labels}</labels></task></meta>"
        f"<image {image}>{shapes}</image></annotations>"
    )


def read(folder: Path, text: str) -> AnnotationTable:
    Image.new("RGB", HW[::-1]).save(folder / "a.png")
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return read_cvat(folder)


BOX = '<box label="cell" xtl="2" ytl="3" xbr="12" ybr="9" {}/>'


@pytest.mark.parametrize(
    ("shapes", "boxes", "masks", "note"),
    [
        ("", [], [], ""),
        (BOX.format('occluded="1" z_order="3"'), [[2, 3, 10, 6]], [False], ""),
        (BOX.format('rotation="0.0"'), [[2, 3, 10, 6]], [False], ""),
        (BOX.format('rotation="90"'), [[4, 1, 6, 10]], [False], "rotated box replaced"),
        (BOX.format('rotation="180"'), [[2, 3, 10, 6]], [False], "rotated box replaced"),
        ('<polygon label="cell" points="2,3;12,3;12,9"/>', [[2, 3, 10, 6]], [True], ""),
        ('<polygon label="cell" points="2,3;12,9;"/>', [[2, 3, 10, 6]], [False], "fewer than three"),
        ('<ellipse label="cell" cx="10" cy="10" rx="4" ry="2"/>', [[6, 8, 8, 4]], [True], ""),
        ('<ellipse label="cell" cx="10" cy="10" rx="4" ry="2" rotation="90"/>', [[8, 6, 4, 8]], [True], ""),
        ('<mask label="axon" rle="0, 2, 2, 2" left="4" top="5" width="3" height="2"/>', [[4, 5, 3, 2]], [True], ""),
        (BOX.format("") + '<points label="cell" points="1,1"/>', [[2, 3, 10, 6]], [False], "neither box nor polygon"),
        (BOX.format("") + '<cuboid label="cell"/>', [[2, 3, 10, 6]], [False], "neither box nor polygon"),
        (BOX.format("") + '<tag label="cell"/>', [[2, 3, 10, 6]], [False], "tags of an image ignored"),
    ],
)
def test_shapes(tmp_path: Path, shapes: str, boxes: Any, masks: list[bool], note: str) -> None:
    table = read(tmp_path, xml(shapes))
    np.testing.assert_allclose(table.boxes_xywh, np.reshape(boxes, (-1, 4)), atol=1e-9)
    assert table.segmentation.present().tolist() == masks
    assert table.class_map.names == ("cell", "axon")
    assert bool(table.notes) is bool(note)
    assert note in " ".join(table.notes.lines())


def test_mask_run_lengths_are_row_major(tmp_path: Path) -> None:
    table = read(tmp_path, xml('<mask label="cell" rle="0,2,2,2" left="4" top="5" width="3" height="2"/>'))
    expected = np.zeros(HW, np.uint8)
    expected[5:7, 4:7] = [[1, 1, 0], [0, 1, 1]]
    segmentation = table.segmentation[0]
    assert isinstance(segmentation, dict)
    np.testing.assert_array_equal(rle_to_mask(segmentation), expected)


MASK = '<mask label="cell" rle="{}" left="{}" top="5" width="3" height="2"/>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml('<box label="cell" xtl="2" ytl="3" xbr="12"/>'), r"image 0 \(a.png\), shape 1 \(box cell\), ybr: None"),
        (xml('<box label="cell" xtl="nan" ytl="3" xbr="12" ybr="4"/>'), "xtl: 'nan' is not a finite number"),
        (xml('<box label="nerve" xtl="2" ytl="3" xbr="12" ybr="9"/>'), "class 'nerve' is not in the class list of"),
        (xml('<polygon label="cell" points="1,2;3"/>'), "points '1,2;3' are not x,y;x,y;..."),
        (xml(MASK.format("1,2", 4)), "the run lengths add up to 3, the box of the mask has 3 x 2 = 6 pixels"),
        (xml(MASK.format("1,-2,7", 4)), "rle '1,-2,7' is not a list of run lengths"),
        (xml(MASK.format("6", 28)), "a mask of 3 x 2 at 28, 5 in an image of 30 x 20"),
        (xml(MASK.format("6", -1)), "left: -1 is not a whole number of at least 0"),
        (xml(MASK.format("6", 1), image='id="0" name="a.png"'), "a mask in an image without width and height"),
        (xml("", image='id="0" name="a.png" width="x" height="20"'), "width: 'x' is not a finite number"),
        (xml("", image='id="0" width="30" height="20"'), "1 of 1 images are not in"),
        ("<annotation/>", "the root is <annotation>|no .xml file of this format"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "document type|no .xml file"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)
    if message.endswith((".xml file", "this format")):
        with pytest.raises(DataError, match=message.partition("|")[0]):
            read_cvat(tmp_path / "annotations.xml")


PERSON = (
    "<label><name>person</name><type>skeleton</type></label>"
    "<label><name>left_hand</name><type>points</type><parent>person</parent></label>"
    "<label><name>right_hand</name><type>points</type><parent>person</parent></label>"
)


def skeleton(first: str = "", second: str = "", label: str = "person", last: str = "right_hand") -> str:
    return (
        f'<skeleton label="{label}"><points label="left_hand" points="2,3" {first}/>'
        f'<points label="{last}" points="22.5,13" {second}/></skeleton>'
    )


@pytest.mark.parametrize(
    ("shape", "points", "box"),
    [
        (skeleton(), [[2, 3, 2], [22.5, 13, 2]], [2, 3, 20.5, 10]),
        (skeleton('outside="0"', 'occluded="1"'), [[2, 3, 2], [22.5, 13, 1]], [2, 3, 20.5, 10]),
        (skeleton('outside="1"'), [[0, 0, 0], [22.5, 13, 2]], [18.5, 9, 8, 8]),
    ],
)
def test_skeletons_are_keypoints(tmp_path: Path, shape: str, points: Any, box: Any) -> None:
    table = read(tmp_path, xml(shape, PERSON))
    assert table.class_map.names == ("person",)
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("left_hand", "right_hand")
    assert table.keypoint_schema.swaps == ((0, 1),)
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [points]
    assert table.boxes_xywh.tolist() == [box]


def test_skeletons_with_different_points(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no image has an object that can be used; .*skeleton without points in the image"
    ):
        read(tmp_path, xml(skeleton('outside="1"', 'outside="1"'), PERSON))
    with pytest.raises(DataError, match=r"point 'foot' is not among left_hand, right_hand"):
        read(tmp_path, xml(skeleton(last="foot"), PERSON))
    with pytest.raises(DataError, match=r"the skeleton 'dog' has the points left_hand, paw, another has left_hand, ri"):
        read(tmp_path, xml(skeleton() + skeleton(label="dog", last="paw"), PERSON))


def test_subsets_are_splits(tmp_path: Path) -> None:
    for subset in ("Train", "Test"):
        (tmp_path / "images" / subset).mkdir(parents=True)
        Image.new("RGB", HW[::-1]).save(tmp_path / "images" / subset / "a.png")
    image = '<image id="0" name="a.png" subset="{}" width="30" height="20">' + BOX.format("") + "</image>"
    (tmp_path / "annotations.xml").write_text(
        f"<annotations>{image.format('Test')}{image.format('Train')}</annotations>"
    )
    table = read_cvat(tmp_path)
    assert table.media.tolist() == ["images/Test/a.png", "images/Train/a.png"]
    assert table.split.tolist() == ["test", "train"]


def test_a_video_without_images(tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text('<annotations><track id="0" label="a"/></annotations>')
    with pytest.raises(
        DataError, match=r"the annotations of a video, but neither a video nor images of its frames \(frame_000000"
    ):
        read_cvat(tmp_path)


@pytest.mark.parametrize(("text", "detected"), [("<annotations/>", False), ("<annotation/>", False), (xml(""), True)])
def test_format_detection(tmp_path: Path, text: str, detected: bool) -> None:
    (tmp_path / "train.xml").write_text(f"<?xml version='1.0'?>\n{text}")
    assert find_cvat(tmp_path, list_files(tmp_path)) == (Detected("CVAT: train.xml (train)") if detected else None)


@pytest.mark.parametrize(
    ("folder", "media", "split", "boxes"),
    [
        (
            "for_images/export_project",
            [f"images/{subset}/img{i}.jpg" for subset in ("Test", "Train", "Validation") for i in (0, 1)],
            ["test", "test", "train", "train", "val", "val"],
            [[0, 2, 4, 2], [1, 2, 5, 3]] * 3,
        ),
        ("for_images/export_task", ["images/img0.jpg"], ["train"], [[0, 2, 4, 2]]),  # the other has polylines only
        ("for_video", [f"images/frame_0000{n}.png" for n in (10, 16)], ["", ""], [[3, 4, 7, 1]]),
    ],
)
def test_real_exports(shared_data: Path, folder: str, media: list[str], split: list[str], boxes: Any) -> None:
    table = read_cvat(shared_data / "datumaro_assets" / "assets" / "cvat_dataset" / folder)
    assert table.media.tolist() == media
    assert table.split.tolist() == split
    assert table.boxes_xywh.tolist() == boxes
