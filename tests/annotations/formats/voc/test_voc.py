"""Pascal VOC data in the forms that users have: a correct table, or one message with file, location and remedy."""

from __future__ import annotations

import csv
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.voc.read import find_voc, read_voc
from detseg.annotations.formats.voc.write import write_voc
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema

HW = (20, 30)
SIZE = "<size><width>30</width><height>20</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>9</ymax></bndbox>"
CELL = f"<object><name>cell</name>{BOX}</object>"


def voc_xml(*objects: str, size: str = SIZE, filename: str = "a.png") -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def object_xml(xmin: Any, ymin: Any, xmax: Any, ymax: Any, name: str = "cell", extra: str = "") -> str:
    return (
        f"<object><bndbox><ymax>{ymax}</ymax><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymin>{ymin}</ymin></bndbox>"
        f"{extra}<name>{name}</name></object>"
    )


def write_image(path: Path, hw: tuple[int, int] = HW, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", hw[::-1])
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation != 1 else {}))
    return path


def write_files(root: Path, files: dict[str, str | bytes | None]) -> Path:
    """``name: text`` writes a file, ``name: None`` an image."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            write_image(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, content: str | bytes, **options: Any) -> AnnotationTable:
    return read_voc(write_files(root, {"Annotations/a.xml": content, "JPEGImages/a.png": None}), **options)


# --- contents --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "boxes"),
    [
        (voc_xml(), []),  # an image without objects is negative
        (voc_xml(CELL), [[2, 3, 10, 6]]),
        (voc_xml(object_xml(2.25, "3.50", "1.2e1", 9)), [[2.25, 3.5, 9.75, 5.5]]),  # floats, any order of elements
        (voc_xml(object_xml(10.1, 0.1, 10.3, 0.3)), [[10.1, 0.1, 0.2, 0.2]]),  # not 0.20000000000000107
        (voc_xml(f"<object><part><name>head</name>{BOX.replace('2', '1')}</part><name>cell</name>{BOX}</object>"),
         [[2, 3, 10, 6]]),
        (voc_xml(object_xml(0, 0, 31, 20)), [[0, 0, 30, 20]]),  # one pixel beyond the image
        (voc_xml(CELL, object_xml(5, 5, 5, 9)), [[2, 3, 10, 6]]),
        (voc_xml(object_xml(9, 5, 5, 9)), [[5, 5, 4, 4]]),  # exchanged corners
        (voc_xml(*[object_xml(i % 25, i % 15, i % 25 + 2, i % 15 + 2) for i in range(500)]), 500),
        (voc_xml(CELL, size=""), [[2, 3, 10, 6]]),
        (voc_xml(CELL, size="<size><width>0</width><height>0</height></size>"), [[2, 3, 10, 6]]),
        (voc_xml(CELL, size="<size><width>30.0</width><height>20.0</height></size>"), [[2, 3, 10, 6]]),
        (voc_xml(CELL, filename="other.png"), [[2, 3, 10, 6]]),  # the name of the XML file decides
        (voc_xml(CELL).replace("<filename>a.png</filename>", "<path>C:\\Users\\x\\b.png</path>"), [[2, 3, 10, 6]]),
        ("\ufeff" + voc_xml(CELL), [[2, 3, 10, 6]]),
    ],
)  # fmt: skip
def test_boxes(tmp_path: Path, content: str, boxes: Any) -> None:
    table = read(tmp_path, content)
    assert len(table) == 1
    if isinstance(boxes, int):
        assert len(table.label) == boxes
    else:
        assert table.boxes_xywh.tolist() == boxes


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (voc_xml(CELL), []),
        (voc_xml(object_xml(0, 0, 31, 20)), ["box clipped to the image"]),
        (voc_xml(CELL, object_xml(5, 5, 5, 9)), ["box dropped: it has no width"]),
        (voc_xml(CELL, size=""), ["<size> missing or 0, taken from the image"]),
        (voc_xml(object_xml(1, 1, 5, 9, extra="<part/>")), ["objects with parts (<part>): parts are ignored"]),
        (
            voc_xml(object_xml(1, 1, 5, 9, extra="<polygon/>")),
            ["objects with a polygon (<polygon>): only the box is read"],
        ),
    ],
)
def test_repairs_are_noted(tmp_path: Path, content: str, kinds: list[str]) -> None:
    assert list(read(tmp_path, content).notes.counts) == kinds


def test_one_based_corners_include_the_last_pixel(tmp_path: Path) -> None:
    content = voc_xml(object_xml(1, 1, 30, 20), object_xml(5, 6, 5, 6))
    assert read(tmp_path, content, one_based=True).boxes_xywh.tolist() == [[0, 0, 30, 20], [4, 5, 1, 1]]
    assert read(tmp_path, content).boxes_xywh.tolist() == [[1, 1, 29, 19]]  # control: half-open corners
    exchanged = voc_xml(object_xml(30, 6, 1, 5))
    assert read(tmp_path, exchanged, one_based=True).boxes_xywh.tolist() == [[0, 4, 30, 2]]


def test_difficult_column(tmp_path: Path) -> None:
    flags = ["1", "0", "", " True ", "false"]
    content = voc_xml(CELL, *[object_xml(1, 1, 5, 5, extra=f"<difficult>{flag}</difficult>") for flag in flags])
    table = read(tmp_path, content)
    assert table.difficult.tolist() == [False, True, False, False, True, False]
    assert not table.ignore.any()
    assert not table.iscrowd.any()


def test_many_objects_are_read_quickly(tmp_path: Path) -> None:
    content = voc_xml(*[object_xml(i % 25, i % 15, i % 25 + 2, i % 15 + 2) for i in range(900)])
    start = time.perf_counter()
    assert len(read(tmp_path, content).label) == 900
    assert time.perf_counter() - start < 2


# --- classes ---------------------------------------------------------------------------------------------------------


def test_classes_are_sorted_and_selected(tmp_path: Path) -> None:
    content = voc_xml(
        object_xml(1, 1, 5, 5, "zebra"), object_xml(1, 1, 5, 5, "Ångström"), object_xml(1, 1, 5, 5, "ant")
    )
    table = read(tmp_path, content)
    assert table.class_map == ClassMap(("ant", "zebra", "Ångström"))
    assert table.label.tolist() == [2, 3, 1]
    table = read(tmp_path, content, classes=["zebra", "ant"])
    assert table.class_map == ClassMap(("zebra", "ant"), (2, 1))
    assert table.label.tolist() == [1, 2]
    assert table.notes.counts == {"instance of an unselected class left out": 1}
    with pytest.raises(DataError, match="no class 'cow'; available classes: ant, zebra, Ångström"):
        read(tmp_path, content, classes=["cow"])


def test_class_order_of_a_labelmap(tmp_path: Path) -> None:
    content = voc_xml(object_xml(1, 1, 5, 5, "cat"), object_xml(1, 1, 5, 5, "ant"))
    lines = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nzebra:1,1,1::\ncat:2,2,2::\n"
    (tmp_path / "labelmap.txt").write_text(lines)
    table = read(tmp_path, content)
    assert table.class_map.names == ("zebra", "cat", "ant")
    assert table.notes.counts == {"class added that labelmap.txt does not list": 1}


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"Annotations/a.xml: the file is empty"),
        (voc_xml(CELL)[:-30], r"Annotations/a.xml: not well-formed XML"),
        (b"<annotation>\xff</annotation>", "not well-formed XML"),
        ("<!DOCTYPE a><annotation/>", "document type"),
        ("<annotations/>", r"root element is <annotations>, expected <annotation> \(Pascal VOC\)"),
        (voc_xml(f"<object>{BOX}</object>"), "object 1: no <name>"),
        (voc_xml(CELL, f"<object><name> </name>{BOX}</object>"), "object 2: no <name>"),
        (voc_xml("<object><name>cell</name></object>"), r"object 1 \(cell\): no <bndbox>"),
        (voc_xml(f"<object><name>cell</name><part>{BOX}</part></object>"), r"object 1 \(cell\): no <bndbox>"),
        (voc_xml(CELL.replace("<xmax>12</xmax>", "")), "no <xmax>"),
        (voc_xml(object_xml(1, 1, "", 9)), "xmax '' is not a number of pixels"),
        (voc_xml(object_xml("nan", 1, 5, 9)), "xmin 'nan' is not a number"),
        (voc_xml(object_xml(1, 1, 5, "1e999")), "ymax '1e999' is not a number"),
        (voc_xml(object_xml(1, 1, 5, "1e99")), "ymax '1e99' is not a number"),
        (voc_xml(object_xml(1, "1,5", 5, 9)), "ymin '1,5' is not a number"),
        (voc_xml(object_xml(1, "<b/>", 5, 9)), "ymin '' is not a number"),
        (voc_xml(object_xml(1, 1, 5, 9, extra="<difficult>maybe</difficult>")), "difficult 'maybe' is neither 0 nor 1"),
        (voc_xml(CELL, size=SIZE.replace("30", "31")),
         r"the size \(width x height\) of 1 of 1 images differs from the annotated size: .*/a.png \(annotated 31 x 20, "
         r"file 30 x 20\)"),
        (voc_xml(CELL, size=SIZE.replace("30", "wide")), "width 'wide' of <size> is not a whole number"),
        (voc_xml(CELL, size=SIZE.replace("30", "30.5")), "width '30.5' of <size>"),
        (voc_xml(CELL, size=SIZE.replace("30", "-30")), "width '-30' of <size>"),
        (voc_xml(*[object_xml(100, 100, 120, 120)] * 9), "extend beyond the image"),
    ],
)  # fmt: skip
def test_errors_of_bad_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_bad_instances_can_be_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Annotations/a.xml, object 1 \(cell\): box .* has no width"):
        read(tmp_path, voc_xml(object_xml(5, 5, 5, 9)), bad_instances="error")


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_voc(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        read_voc(write_image(tmp_path / "a.png"))
    with pytest.raises(DataError, match="no XML file in it"):
        read_voc(tmp_path)


# --- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "data", "media", "splits"),
    [
        ({"Annotations/a.xml": voc_xml(), "JPEGImages/a.png": None}, "", ["JPEGImages/a.png"], [""]),
        ({"VOC2007/Annotations/a.xml": voc_xml(), "VOC2007/JPEGImages/a.png": None}, "", ["VOC2007/JPEGImages/a.png"],
         [""]),
        ({"Annotations/a.xml": voc_xml(), "JPEGImages/a.png": None}, "Annotations", ["JPEGImages/a.png"], [""]),
        ({"annotations/a.xml": voc_xml(), "images/a.png": None}, "", ["images/a.png"], [""]),
        ({"annotations/a.xml": voc_xml(), "images/a.png": None}, "annotations", ["a.png"], [""]),
        ({"a.xml": voc_xml(), "a.png": None}, "", ["a.png"], [""]),
        ({"pics/a.png": None, "marks/a.xml": voc_xml()}, "", ["pics/a.png"], [""]),
        ({"train/a.xml": voc_xml(), "train/a.png": None, "valid/a.xml": voc_xml(), "valid/a.png": None}, "",
         ["train/a.png", "valid/a.png"], ["train", "val"]),  # Roboflow; equal names
        ({"train/images/a.png": None, "train/annotations/a.xml": voc_xml()}, "", ["train/images/a.png"], ["train"]),
        ({"a_jpg.rf.0f3.xml": voc_xml(), "a_jpg.rf.0f3.jpg": None}, "", ["a_jpg.rf.0f3.jpg"], [""]),
        ({"Annotations/x.xml": voc_xml(), "JPEGImages/a.png": None}, "", ["JPEGImages/a.png"], [""]),  # by <filename>
        ({"Annotations/a.xml": voc_xml(), "JPEGImages/a.png": None, "JPEGImages/a.jpg": None}, "", ["JPEGImages/a.png"],
         [""]),
        ({"Annotations/ein Bär 猫.xml": voc_xml(), "JPEGImages/ein Bär 猫.png": None}, "",
         ["JPEGImages/ein Bär 猫.png"], [""]),
        ({"Annotations/e\u0301.xml": voc_xml(), "JPEGImages/\u00e9.png": None}, "", ["JPEGImages/\u00e9.png"], [""]),
    ],
)  # fmt: skip
def test_layouts(tmp_path: Path, files: dict[str, str | None], data: str, media: list[str], splits: list[str]) -> None:
    write_files(tmp_path, files)
    table = read_voc(tmp_path / data)
    assert table.media.tolist() == media
    assert table.split.tolist() == splits
    assert all((table.root / name).is_file() for name in media)
    assert find_voc(tmp_path, list_files(tmp_path)) is not None


def test_images_in_another_folder(tmp_path: Path) -> None:
    write_files(tmp_path, {"marks/sub/a.xml": voc_xml(CELL), "far/away/sub/a.png": None, "marks/b.txt": "no"})
    with pytest.raises(DataError, match=r"1 of 1 annotation files have no image: sub/a.xml; .* --images"):
        read_voc(tmp_path / "marks")
    table = read_voc(tmp_path / "marks", tmp_path / "far/away")
    assert table.media.tolist() == ["sub/a.png"]
    assert table.root == tmp_path / "far/away"
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        read_voc(tmp_path / "marks", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "..\\..\\secret.png"])
def test_names_cannot_refer_outside_the_folder(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "secret.png")
    path = f"<path>{name}</path>"
    write_files(tmp_path / "data", {"Annotations/x.xml": voc_xml(path, filename=name), "JPEGImages/b.png": None})
    with pytest.raises(DataError, match="1 of 1 annotation files have no image"):
        read_voc(tmp_path / "data")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({f"{i}.xml": voc_xml() for i in range(7)},
         r"7 of 7 annotation files have no image: 0.xml, .*, 4.xml, \.\.\.;"),
        ({"a.xml": voc_xml(filename="x"), "a.png": None, "a.jpg": None},
         r"match several images: a.xml \(a.jpg, a.png\)"),
        ({"train/a.xml": voc_xml(), "val/a.xml": voc_xml(), "val/a.png": None},
         "the image val/a.png is annotated in train/a.xml and in val/a.xml"),
        ({"a.xml": voc_xml(), "a.png": b"no image"}, "1 of 1 images cannot be read"),
    ],
)  # fmt: skip
def test_images_that_do_not_match(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_voc(write_files(tmp_path, files))


def test_unused_images_and_masks_are_noted(tmp_path: Path) -> None:
    files = {"Annotations/a.xml": voc_xml(CELL), "JPEGImages/a.png": None, "JPEGImages/b.png": None}
    write_files(tmp_path, {**files, "SegmentationObject/a.png": None})
    counts = read_voc(tmp_path).notes.counts
    assert counts == {
        "image without an XML file left out": 1,
        "masks in SegmentationObject not read (use --format masks)": 1,
    }


@pytest.mark.parametrize(
    ("width", "height", "box", "stored_frame"),
    [
        (30, 20, [11, 2, 6, 10], True),  # coordinates of the stored pixels: rotated
        (20, 30, [2, 3, 10, 6], False),  # coordinates of the upright image
        (0, 0, [2, 3, 10, 6], False),  # no size: labelling tools show images upright
    ],
)
def test_an_image_rotated_by_exif(
    tmp_path: Path, width: int, height: int, box: list[float], stored_frame: bool
) -> None:
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    write_files(tmp_path, {"a.xml": voc_xml(CELL, size=size)})
    write_image(tmp_path / "a.jpg", orientation=6)
    table = read_voc(tmp_path)
    assert table[0].size_hw == (30, 20)
    assert table.boxes_xywh.tolist() == [box]
    assert table.stored_frame.tolist() == [stored_frame]
    assert ("image rotated by EXIF: coordinates are assumed to refer to the upright image" in table.notes.counts) == (
        width == 0
    )
    written = write_voc(table, tmp_path / "new")
    copy_images(table, written, tmp_path / "new")
    again = read_voc(tmp_path / "new")
    assert again.boxes_xywh.tolist() == [box]
    assert again.stored_frame.tolist() == [stored_frame]


# --- ImageSets/Main --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lists", "splits", "kinds"),
    [
        ({}, ["", "", ""], []),
        ({"train": "a\nb\n", "val": "c"}, ["train", "train", "val"], []),
        ({"train": "a", "trainval": "a\nb", "test": "c"}, ["train", "train", "test"], []),
        ({"val": "a", "trainval": "a\nb", "test": "c"}, ["val", "train", "test"], []),
        ({"train": "# comment\n\n a \n", "valid": '"b"'}, ["train", "val", ""],
         ["image in no list of ImageSets/Main, split left empty"]),
        ({"train": "a.png\nb  1\nc -1"}, ["train", "train", "train"], []),
        ({"train": "a\nb\nc\nx"}, ["train", "train", "train"], ["listed name without an annotation file ignored"]),
        ({"dog_train": "a  1\nb -1", "default": "a\nb\nc"}, ["", "", ""], []),
        ({"dog_train": "a  1\nb -1"}, ["", "", ""], []),
    ],
)  # fmt: skip
def test_splits_of_image_lists(tmp_path: Path, lists: dict[str, str], splits: list[str], kinds: list[str]) -> None:
    for prefix in ("", "VOC2012/"):
        root = tmp_path / (prefix.strip("/") or "flat")
        write_files(root, {f"{prefix}ImageSets/Main/{name}.txt": text for name, text in lists.items()})
        for name in "abc":
            write_files(
                root, {f"{prefix}Annotations/{name}.xml": voc_xml(CELL), f"{prefix}JPEGImages/{name}.png": None}
            )
        table = read_voc(root)
        assert table.split.tolist() == splits
        assert list(table.notes.counts) == kinds
        assert read_voc(root, split="val").split.tolist() == ["val"] * 3


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": "a", "val": "a"}, "val.txt: a is also in ImageSets/Main/train.txt"),
        ({"train": "a", "test": "a"}, "an image belongs to one split: remove it from test or train"),
        ({"trainval": "a", "test": "a"}, "trainval.txt: a is also in ImageSets/Main/test.txt"),
        ({"train": b"\xff\xfe"}, "train.txt: not UTF-8"),
    ],
)
def test_contradictory_lists(tmp_path: Path, lists: dict[str, Any], message: str) -> None:
    write_files(tmp_path, {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()})
    with pytest.raises(DataError, match=message):
        read(tmp_path, voc_xml())


# --- format detection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, None),
        ({"a.png": None}, None),
        ({"a.xml": voc_xml()}, "Pascal VOC: 1 files in ."),
        ({"Annotations/a.xml": voc_xml(CELL), "ImageSets/Main/train.txt": ""},
         "Pascal VOC: 1 files in Annotations, ImageSets/Main"),
        ({"a.xml": "<annotations><image/></annotations>"}, None),  # CVAT
        ({"a.xml": "<annotation><imagesize/><object><polygon/></object></annotation>"}, None),  # LabelMe
        ({"a.xml": "<html/>", "b.json": "{}"}, None),
        ({"a.xml": b""}, None),
    ],
)  # fmt: skip
def test_format_detection(tmp_path: Path, files: dict[str, Any], line: str | None) -> None:
    write_files(tmp_path, files)
    assert find_voc(tmp_path, list_files(tmp_path)) == (line and Detected(line))


# --- writing ---------------------------------------------------------------------------------------------------------


def copy_images(table: AnnotationTable, written: WriteResult, root: Path) -> None:
    """Copy the images to the paths that the writer returned; images without a file are created."""
    for index, name in enumerate(written.images):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = table.root / str(table.media[index])
        if source.is_file():
            shutil.copy(source, target)
        else:
            write_image(target, table[index].stored_hw)


def make_table(
    boxes: Any = (), media: tuple[str, ...] = ("a.png",), splits: tuple[str, ...] = ("",)
) -> AnnotationTable:
    """All ``boxes`` in the first image, with labels 1, 2, 1, ..."""
    builder = TableBuilder(ClassMap(("b & <b>", "ä猫")), "nowhere", source="test")
    for number, (name, split) in enumerate(zip(media, splits * len(media), strict=False)):
        builder.add_image(name, (480, 640), split=split)
        for index, box in enumerate(boxes if number == 0 else ()):
            builder.add_instance(box, index % 2 + 1, difficult=index % 3 == 0)
    return builder.build()


def random_boxes(number: int) -> list[list[float]]:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (number, 2)) ** rng.uniform(0.1, 1, (number, 1))
    return np.concatenate([corner, 10.0 ** rng.uniform(-6, 2, (number, 2))], axis=1).tolist()


@pytest.mark.parametrize("boxes", [[], [[2, 3, 10, 6]], [[0.1, 200.2, 0.3, 1e-7]], random_boxes(300)])
def test_round_trip_is_bit_identical(tmp_path: Path, boxes: list[list[float]]) -> None:
    table = make_table(boxes)
    written = write_voc(table, tmp_path / "new")
    assert written.images == ["JPEGImages/a.png"]
    assert not written.notes
    copy_images(table, written, tmp_path / "new")
    again = read_voc(tmp_path / "new")
    assert again.boxes_xywh.tolist() == boxes
    assert [again.class_map.name_of(label) for label in again.label] == [
        table.class_map.name_of(label) for label in table.label
    ]
    assert again.difficult.tolist() == table.difficult.tolist()
    assert not again.notes


def test_control_float_arithmetic_is_not_exact() -> None:
    assert any(x + w - x != w for x, _, w, _ in random_boxes(300))


def test_round_trip_of_splits_and_folders(tmp_path: Path) -> None:
    media = ("images/x/a.png", "images/y/a.png", "images/b.png", "c.v2.png")
    table = make_table([[1, 2, 3, 4]], media, ("train", "val", "test", ""))
    written = write_voc(table, tmp_path / "new")
    assert written.images == ["JPEGImages/x/a.png", "JPEGImages/y/a.png", "JPEGImages/b.png", "JPEGImages/c.v2.png"]
    assert written.notes.counts == {"image without a split not listed in ImageSets/Main": 1}
    copy_images(table, written, tmp_path / "new")
    again = read_voc(tmp_path / "new")
    assert dict(zip(again.media.tolist(), again.split.tolist(), strict=True)) == dict(
        zip(written.images, table.split.tolist(), strict=True)
    )
    assert (tmp_path / "new/ImageSets/Main/trainval.txt").read_text() == "x/a\ny/a\n"


def test_unsupported_fields_are_noted(tmp_path: Path) -> None:
    builder = TableBuilder(ClassMap(("a",)), "nowhere", source="test", keypoint_schema=keypoint_schema(["p"]))
    builder.add_image("a.png", (480, 640), group="g")
    ring = np.array([[1.0, 1], [9, 1], [9, 9]])
    builder.add_instance(None, 1, segmentation=[ring], keypoints=np.array([[2, 2, 2.0]]))
    builder.add_instance([1, 1, 5, 5], 1, iscrowd=True)
    builder.add_instance([1, 1, 5, 5], 1, ignore=True)
    builder.add_instance([1, 1, 5, 5], 1, area=7)
    table = builder.build()
    written = write_voc(table, tmp_path / "new")
    assert written.notes.counts == {
        "mask not written (only its box)": 1,
        "keypoints not written": 1,
        "crowd written as difficult": 1,
        "ignored object written as difficult": 1,
        "area different from width x height not written": 1,
        "group of an image not written": 1,
    }
    copy_images(table, written, tmp_path / "new")
    assert read_voc(tmp_path / "new").difficult.tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("media", "message"),
    [
        (("a.png", "a.jpg"), "a.png and a.jpg differ only in their suffix"),
        (("",), "is not an image file below"),
        (("../a.png",), "is not an image file below"),
        (("/a.png",), "is not an image file below"),
        (("a\x01.png",), "control characters"),
    ],
)
def test_tables_that_cannot_be_written(tmp_path: Path, media: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_voc(make_table((), media), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_image_classes_and_non_empty_folders_are_rejected(tmp_path: Path) -> None:
    table = make_table()
    with pytest.raises(DataError, match="cannot store the classes of whole images"):
        write_voc(replace(table, class_index=np.zeros((1, 1), np.int64)), tmp_path / "new")
    write_image(tmp_path / "full/a.png")
    with pytest.raises(DataError, match="full: the folder is not empty"):
        write_voc(table, tmp_path / "full")
    write_voc(table.subset([]), tmp_path / "empty")
    with pytest.raises(DataError, match="no XML file"):
        read_voc(tmp_path / "empty")


# --- real data -------------------------------------------------------------------------------------------------------


def test_blood_cells(shared_data: Path, tmp_path: Path) -> None:
    table = read_voc(shared_data / "bccd")
    assert len(table) == 364
    assert Counter(table.split.tolist()) == {"train": 205, "val": 87, "test": 72}
    names = Counter(table.class_map.name_of(label) for label in table.label)
    assert names == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    assert table.notes.counts == {"box dropped: it has no width": 2}
    expected: Counter[tuple[str, tuple[float, ...]]] = Counter()
    for path in sorted((shared_data / "bccd/BCCD/Annotations").glob("*.xml")):  # an independent reader as reference
        for element in ElementTree.parse(path).iter("object"):
            x1, y1, x2, y2 = (
                float(element.findtext(f"bndbox/{tag}") or "") for tag in ("xmin", "ymin", "xmax", "ymax")
            )
            if x2 > x1 and y2 > y1:
                expected[path.stem, (x1, y1, x2 - x1, y2 - y1)] += 1
    boxes = Counter((record.path.stem, tuple(box)) for record in table for box in record.boxes_xywh.tolist())
    assert boxes == expected
    subset = table.subset(np.arange(0, 364, 9))  # each file is synced to disk: 13 ms each
    assert not write_voc(subset, tmp_path / "new").notes
    again = read_voc(tmp_path / "new", shared_data / "bccd/BCCD/JPEGImages")
    assert [record.boxes_xywh.tolist() for record in again] == [record.boxes_xywh.tolist() for record in subset]
    assert again.split.tolist() == subset.split.tolist()


def test_blood_cells_agree_with_the_published_table(shared_data: Path) -> None:
    table = read_voc(shared_data / "bccd" / "BCCD", classes=["WBC"])
    with (shared_data / "bccd/test.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["cell_type"] == "WBC"]
    boxes_of = {record.path.name: record.boxes_xywh.tolist() for record in table}
    for row in rows:
        x1, y1, x2, y2 = (float(row[key]) for key in ("xmin", "ymin", "xmax", "ymax"))
        assert [x1, y1, x2 - x1, y2 - y1] in boxes_of[Path(row["filename"]).name]


def test_toy_example(shared_data: Path) -> None:
    root = shared_data / "padilla_metrics/toyexample"
    table = read_voc(root / "gts_vocpascal_format")
    assert table.root == (root / "images").resolve()
    assert (len(table), len(table.label), table.class_map.names) == (10, 12, ("cat",))
    assert table.notes.counts == {"image without an XML file left out": 2}
    assert read_voc(root / "gts_vocpascal_format", root / "images").boxes_xywh.tolist() == table.boxes_xywh.tolist()


@pytest.mark.parametrize(
    ("name", "classes", "boxes", "splits"),
    [
        ("voc_dataset/voc_dataset1", ("cat", "person"), [[1, 2, 2, 2], [4, 5, 2, 2]], ["train"]),
        ("voc_dataset/voc_dataset3", ("cat",), [[1, 2, 2, 2]], ["train"]),
        ("roboflow_dataset/voc", ("label_0", "label_1"), [[2, 1, 3, 1], [0, 0, 2, 4], [0, 0, 1, 2], [0, 0, 9, 1]],
         ["train", "train", "val"]),
    ],
)  # fmt: skip
def test_datumaro_samples(
    shared_data: Path, name: str, classes: tuple[str, ...], boxes: list[list[float]], splits: list[str]
) -> None:
    table = read_voc(shared_data / "datumaro_assets/assets" / name)
    assert table.class_map.names == classes
    assert table.boxes_xywh.tolist() == boxes
    assert table.split.tolist() == splits


def test_a_sample_without_images_and_sizes(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "datumaro_assets/assets/voc_dataset/voc_dataset2"
    with pytest.raises(DataError, match=r"5 of 5 annotation files have no image: Annotations/@.xml, "):
        read_voc(root)
    for name in "@abcd":
        write_image(tmp_path / f"{name}.jpg")
    table = read_voc(root, tmp_path)
    assert len(table.class_map) == 21  # labelmap.txt; "ignored" has no box, "background" has one
    assert [table.class_map.name_of(label) for label in table.label] == ["background", "aeroplane", "bicycle", "bird"]
    assert table.split.tolist() == ["train"] * 5
    assert table.notes.counts == {"<size> missing or 0, taken from the image": 5}


def test_other_formats_are_not_detected_as_voc(shared_data: Path) -> None:
    root = shared_data / "datumaro_assets/assets"
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in ("voc_dataset", "roboflow_dataset"):
            assert find_voc(path, list_files(path)) is None, path.name
