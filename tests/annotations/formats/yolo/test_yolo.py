"""YOLO labels in the forms that users have: a correct table, or one message with file, location and remedy."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.yolo.read import find_yolo, read_yolo
from detseg.annotations.formats.yolo.write import write_yolo
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.masks import mask_to_rle

HW = (20, 40)
BOX = "0 0.5 0.5 0.25 0.5"  # 15, 5, 10, 10
YAML = "names: [cell, dot]\n"


def write_image(path: Path, hw: tuple[int, int] = HW, orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", hw[::-1])
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, **({"exif": exif} if orientation != 1 else {}))
    return path


def write_files(root: Path, files: dict[str, Any]) -> Path:
    """``name: text`` writes a file, ``name: None`` an image."""
    root.mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            write_image(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, lines: str | bytes, config: str = YAML, **options: Any) -> AnnotationTable:
    return read_yolo(write_files(root, {"labels/a.txt": lines, "images/a.png": None, "data.yaml": config}), **options)


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "boxes", "labels", "masks"),
    [
        ("", [], [], []),
        ("\n \n", [], [], []),
        (BOX, [[15, 5, 10, 10]], [1], [False]),
        (f"\ufeff{BOX}\r\n1.0 0.1 0.1 0.1 0.1\r\n", [[15, 5, 10, 10], [2, 1, 4, 2]], [1, 2], [False, False]),
        ("0\t5e-1 .5 0.25  0.5", [[15, 5, 10, 10]], [1], [False]),
        ("0 0 0 1 0 1 1", [[0, 0, 40, 20]], [1], [True]),  # a triangle
        (f"1 0 0 0.5 0 0.5 0.5 0 0.5\n{BOX}", [[0, 0, 20, 10], [15, 5, 10, 10]], [2, 1], [True, False]),
        ("0 0.0125 0.5 0.05 0.5", [[0, 5, 1.5, 10]], [1], [False]),  # beyond the border: clipped
        ("0 0.333333 0.5 0.666667 1.0", [[0, 0, 26.66666, 20]], [1], [False]),  # six decimals: on the border
        (f"{BOX}\n0 1.2 0.5 0.2 0.2", [[15, 5, 10, 10]], [1], [False]),
        (f"{BOX}\n0 0.5 0.5 0 0.2", [[15, 5, 10, 10]], [1], [False]),
        (f"{BOX}\n0 0.5 0.5 0.5 0.5 0.5 0.5", [[15, 5, 10, 10]], [1], [False]),  # a polygon without width
        ("0 0.5 0.5 -0.25 0.5", [[15, 5, 10, 10]], [1], [False]),
        ("\n".join([BOX] * 700), [[15, 5, 10, 10]] * 700, [1] * 700, [False] * 700),
    ],
)
def test_lines(tmp_path: Path, lines: str, boxes: Any, labels: list[int], masks: list[bool]) -> None:
    table = read(tmp_path, lines)
    assert len(table) == 1
    np.testing.assert_allclose(table.boxes_xywh, np.array(boxes, float).reshape(-1, 4), atol=1e-5, rtol=0)
    assert table.label.tolist() == labels
    assert table.segmentation.present().tolist() == masks


@pytest.mark.parametrize(
    ("lines", "kinds"),
    [
        ("", ["image without objects (label file missing or empty): used as negative"]),
        (BOX, []),
        ("0 0.333333 0.5 0.666667 1.0", []),
        ("0 0.0125 0.5 0.05 0.5", ["box clipped to the image"]),
        (f"{BOX}\n0 1.2 0.5 0.2 0.2", ["box dropped: it is outside the image"]),
        (f"{BOX}\n0 0.5 0.5 0 0.2", ["box dropped: it has no width"]),
    ],
)
def test_repairs_are_noted(tmp_path: Path, lines: str, kinds: list[str]) -> None:
    assert list(read(tmp_path, lines).notes.counts) == kinds


def test_random_boxes_against_the_published_formula(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(0.01, 0.5, (200, 2))
    center = size / 2 + rng.uniform(0, 1, (200, 2)) * (1 - size)
    table = read(tmp_path, "\n".join(f"0 {x} {y} {w} {h}" for (x, y), (w, h) in zip(center, size, strict=True)))
    expected = np.concatenate([(center - size / 2) * HW[::-1], size * HW[::-1]], axis=1)
    np.testing.assert_allclose(table.boxes_xywh, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9", r"labels/a.txt, line 1: 6 fields; .* are predictions"),
        (f"{BOX}\n0 0 0 1 0 1 1 0.9", "line 2: 7 numbers after the class; a polygon"),
        ("0 0 0 2 2 2 2 0 label_0 0", "line 1: four corners and a class name.* rotated boxes"),
        ("0", "line 1: 1 fields; a box has 5"),
        ("0 0.1 0.1", "line 1: 3 fields"),
        ("0 0.1 0.1 0.2", "line 1: 4 fields"),
        ("0 120 60 30 40", "line 1: 120 is not normalized"),
        ("0 0.5 -3 0.1 0.1", "-3 is not normalized"),
        ("0 10 10 20 10 20 20", "10 is not normalized"),
        ("cell 0.5 0.5 0.2 0.2", "the class 'cell' is not a number"),
        ("0.5 0.5 0.5 0.2 0.2", "the class 0.5 is not a whole number"),
        ("-1 0.5 0.5 0.2 0.2", "the class -1 is not a whole number"),
        ("nan 0.5 0.5 0.2 0.2", "the class nan"),
        ("7 0.5 0.5 0.2 0.2", r"line 1: class 7 is not in data.yaml \(0 cell, 1 dot\)"),
        ("0 nan 0.5 0.2 0.2", "'nan' is not a finite number"),
        ("0 1e999 0.5 0.2 0.2", "'1e999' is not a finite number"),
        ("0 0.5 0.5 0.2 0.", r"no image has an object that can be used; .*has no height"),  # truncated
        ("0 0.5 0.5 0.2", "4 fields"),
        (b"\xff\xfe0 0", "labels/a.txt: not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "labels/a.txt: not UTF-8"),
    ],
)
def test_errors_of_bad_files(tmp_path: Path, lines: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, lines)


def test_bad_instances_can_be_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels/a.txt, line 2: box .* has no width"):
        read(tmp_path, f"{BOX}\n0 0.5 0.5 0 0.2", bad_instances="error")


def test_many_objects_are_read_quickly(tmp_path: Path) -> None:
    start = time.perf_counter()
    assert len(read(tmp_path, "\n".join([BOX] * 2000)).label) == 2000
    assert time.perf_counter() - start < 2


# --- poses -----------------------------------------------------------------------------------------------------------


def test_poses(tmp_path: Path) -> None:
    config = YAML + "kpt_shape: [3, 3]\nflip_idx: [1, 0, 2]\n"
    table = read(tmp_path, f"{BOX} 0.5 0.5 2 0.25 0.5 1 0 0 0\n{BOX}", config)
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("point 1", "point 2", "point 3")
    assert table.keypoint_schema.swaps == ((0, 1),)
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [[[20, 10, 2], [10, 10, 1], [0, 0, 0]], [[0, 0, 0]] * 3]
    config = YAML + "kpt_shape: [2, 2]\nkpt_names: {0: [left_eye, right_eye]}\n"
    table = read(tmp_path, f"{BOX} 0.5 0.5 0 0", config)
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.names == ("left_eye", "right_eye")
    assert table.keypoint_schema.swaps == ((0, 1),)
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [[[20, 10, 2], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("config", "lines", "message"),
    [
        ("kpt_shape: [2, 3]", f"{BOX} 0.5 0.5 2", "8 fields, expected 11"),
        ("kpt_shape: [1, 3]", f"{BOX} 0.5 0.5 0.93", "visibility is 0.93"),
        ("kpt_shape: [1, 3]", f"{BOX} 50 0.5 2", "50 is not normalized"),
        ("kpt_shape: [1, 4]", BOX, r"kpt_shape \[1, 4\] is not"),
        ("kpt_shape: [1000000, 3]", BOX, "kpt_shape"),
        ("kpt_shape: three", BOX, "kpt_shape is 'three'"),
        ("", f"{BOX} 0.5 0.5 2", "7 numbers after the class.* kpt_shape"),
    ],
)
def test_errors_of_poses(tmp_path: Path, config: str, lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, lines, YAML + config)


def test_an_invalid_flip_idx_is_ignored(tmp_path: Path) -> None:
    table = read(tmp_path, BOX, YAML + "kpt_shape: [3, 3]\nflip_idx: [1, 2, 0]\n")
    assert table.keypoint_schema is not None
    assert table.keypoint_schema.swaps == ()
    assert "flip_idx ignored: it does not swap points in pairs" in table.notes.counts


# --- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "names", "ids"),
    [
        ({"data.yaml": "names: [cell, dot]"}, ("cell", "dot"), (0, 1)),
        ({"data.yaml": "names:\n  0: cell\n  1: dot\n"}, ("cell", "dot"), (0, 1)),
        ({"data.yaml": "names:\n  5: five\n  0: zero\n"}, ("zero", "five"), (0, 5)),
        ({"data.yaml": "names: [no, 1, ~, 猫]"}, ("no", "1", "~", "猫"), (0, 1, 2, 3)),  # read as text
        ({"dataset.yml": "names: [a]"}, ("a",), (0,)),
        ({"coco8.yaml": "nc: 1\nnames: [a]", "other.yaml": "x: 1"}, ("a",), (0,)),
        ({"classes.txt": "cell\r\na dot\r\n\r\n"}, ("cell", "a dot"), (0, 1)),
        ({"labels/classes.txt": "cell"}, ("cell",), (0,)),
        ({"obj.names": "cell\n"}, ("cell",), (0,)),
        ({"obj.data": "classes = 1\nnames = data/my.names\n", "my.names": "cell"}, ("cell",), (0,)),
        ({}, ("class 0",), (0,)),
        ({"README.txt": "0 words"}, ("class 0",), (0,)),
    ],
)
def test_class_names(tmp_path: Path, files: dict[str, str], names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    table = read_yolo(write_files(tmp_path, {"labels/a.txt": BOX, "images/a.png": None, **files}))
    assert table.class_map == ClassMap(names, ids)
    assert any("classes are numbered" in kind for kind in table.notes.counts) == (names == ("class 0",))


def test_numbered_classes_are_those_that_occur(tmp_path: Path) -> None:
    lines = f"{BOX}\n2000000000 0.5 0.5 0.1 0.1"
    table = read_yolo(write_files(tmp_path, {"a.txt": lines, "a.png": None}))
    assert table.class_map == ClassMap(("class 0", "class 2000000000"), (0, 2000000000))


def test_classes_are_selected(tmp_path: Path) -> None:
    table = read(tmp_path, f"{BOX}\n1 0.5 0.5 0.1 0.1", classes=["dot"])
    assert table.class_map == ClassMap(("dot",), (1,))
    assert table.label.tolist() == [1]
    assert table.notes.counts == {"instance of an unselected class left out": 1}
    with pytest.raises(DataError, match="no class 'cow'; available classes: cell, dot"):
        read(tmp_path, BOX, classes=["cow"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("names: [a, a]", "data.yaml: classes 0 and 1 have the same name 'a'"),
        ("names: [a, '']", "data.yaml: class 1 has no name"),
        ("names: [[a]]", "name 0 is .* not a string"),
        ("names: {a: b}", "the key 'a' in names is not a class number"),
        ("names: []", "no class names in it"),
        ("names: cell", "names is 'cell', not a list"),
        ("names: [a", "data.yaml: not YAML"),
        ("names: [a]\ntrain: {a: b}", "train is .* not a string"),
        ("names: [a]\npath: [a]", "path is .* not a string"),
        ("names: [a]\nx: " + "[" * 100_000, "data.yaml: lists are nested deeper"),
        ("names: [a]\nx: " + "- " * 100_000, "data.yaml: not YAML"),
        ("names: [a]\nx:\n" + "- " * 100_000, "data.yaml: lists are nested deeper"),
        ("a: &a [x]\nb: &b [*a, *a]\nnames: [*b, *b]", "data.yaml: contains a YAML alias"),
        ("- names:\nnames: [a]", "not YAML"),
        (b"names: [\xff]", "data.yaml: not UTF-8"),
        (b"names: [a]\n" + b"#" * 2**20, "bytes, more than"),
    ],
)
def test_corrupt_configs(tmp_path: Path, config: Any, message: str) -> None:
    files = {"labels/a.txt": BOX, "images/a.png": None, "data.yaml": config}
    with pytest.raises(DataError, match=message):
        read_yolo(write_files(tmp_path, files) / "data.yaml")


def test_yaml_tags_are_not_executed(tmp_path: Path) -> None:
    target = tmp_path / "made"
    config = f"names: [a]\nx: !!python/object/apply:os.mkdir ['{target}']\n"
    assert len(read(tmp_path / "data", BOX, config)) == 1
    assert not target.exists()


# --- splits ----------------------------------------------------------------------------------------------------------

SPLIT_FOLDERS = {
    "train/images/a.png": None,
    "train/labels/a.txt": BOX,
    "valid/images/a.png": None,
    "valid/labels/a.txt": BOX,
}
SPLIT = {"images/train/a.png": None, "labels/train/a.txt": BOX, "images/val/b.png": None, "labels/val/b.txt": BOX}
ROBOFLOW = "names: [a]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"


@pytest.mark.parametrize(
    ("files", "splits", "kinds"),
    [
        (SPLIT, ["train", "val"], []),
        (SPLIT_FOLDERS, ["train", "val"], []),
        ({**SPLIT_FOLDERS, "data.yaml": ROBOFLOW}, ["train", "val"], ["test of data.yaml not found"]),
        ({**SPLIT, "data.yaml": "names: [a]\ntrain: images/train\nval: images/val\n"}, ["train", "val"], []),
        ({**SPLIT, "data.yaml": "names: [a]\npath: .\ntrain: [images/train/]\nval: [./images/val]\ntest:\n"},
         ["train", "val"], []),
        ({**SPLIT, "data.yaml": "names: [a]\npath: ../datasets/cells\ntrain: images/train\nval: images/val\n"},
         ["train", "val"], ["folder or list found at another path than stated"]),
        ({**SPLIT, "data.yaml": "names: [a]\npath: C:\\x\\cells\ntrain: images\\train\nval: images\\val\n"},
         ["train", "val"], ["folder or list found at another path than stated"]),
        ({**SPLIT, "data.yaml": "names: [a]\ntrain: images/train\nval: images/train\n"}, ["", ""],
         ["two splits have the same images, used once", "labelled image in no split, split left empty"]),
        ({**SPLIT, "data.yaml": "names: [a]\ntrain: images/train\nval: images/val\ntest: images/val\n"},
         ["train", "val"], ["two splits have the same images, used once"]),
        ({**SPLIT, "data.yaml": "names: [a]\ntrain: images/train\n", "images/val/c.png": None}, ["train", ""],
         ["labelled image in no split, split left empty", "image without label file in no split left out"
          ]),
        ({"a.png": None, "a.txt": BOX, "b.png": None}, ["", ""],
         ["image without objects (label file missing or empty): used as negative"]),
        ({**SPLIT, "images/test/c.png": None, "train_batch0.jpg": None}, ["train", "val"],
         ["image in a split without label files left out"]),
        ({"obj_train_data/a.png": None, "obj_train_data/a.txt": BOX, "obj_valid_data/b.png": None,
          "obj_valid_data/b.txt": "", "train.txt": "data/obj_train_data/a.png\n", "obj.names": "a\n",
          "valid.txt": "data/obj_valid_data/b.png", "obj.data": "train = data/train.txt\nvalid = data/valid.txt\n"
          "names = data/obj.names\n"}, ["train", "val"],
         ["folder or list found at another path than stated",
          "image of a list found at another path than stated",
          "image without objects (label file missing or empty): used as negative"]),
        ({**SPLIT, "train.txt": "./images/train/a.png", "val.txt": "/home/x/images/val/b.png\n\n"}, ["train", "val"],
         ["image of a list found at another path than stated"]),
        ({"Images/a.png": None, "Annotations/a.txt": BOX}, [""], []),
    ],
)  # fmt: skip
def test_splits(tmp_path: Path, files: dict[str, Any], splits: list[str], kinds: list[str]) -> None:
    write_files(tmp_path, files)
    table = read_yolo(tmp_path)
    assert table.split.tolist() == splits
    observed = [kind for kind in table.notes.counts if "classes are numbered" not in kind]
    assert observed == kinds
    assert set(read_yolo(tmp_path, split="test").split.tolist()) == {"test"}
    if "data.yaml" in files:
        assert read_yolo(tmp_path / "data.yaml").media.tolist() == table.media.tolist()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no YOLO label file"),
        ({"images/a.png": None}, "no YOLO label file"),
        ({"labels/a.txt": BOX}, r"1 of 1 annotation files have no image: labels/a.txt; .* --images"),
        ({"images/a.png": None, "labels/a.txt": BOX, "labels/b.txt": BOX}, "1 of 2 annotation files have no image"),
        ({"a.png": None, "a.jpg": None, "a.txt": BOX}, r"match several images: a.txt \(a.jpg, a.png\)"),
        ({**SPLIT, "train.txt": "images/x.png\n", "val.txt": "images/val/b.png"},
         "train.txt: 1 of 1 images are not in .*: images/x.png"),
        ({**SPLIT, "train.txt": "images/train/a.png\nimages/val/b.png", "val.txt": "images/val/b.png"},
         "the image images/val/b.png is in train and in val"),
        ({**SPLIT, "data.yaml": "names: [a]\ntrain: pics/one\nval: pics/two\n"},
         "data.yaml: none of pics/one, pics/two is in"),
        ({**SPLIT, "one.yaml": "names: [a]", "two.yaml": "names: [b]"}, "several YOLO configs"),
        ({"images/a.png": b"no image", "labels/a.txt": BOX}, "1 of 1 images cannot be read"),
        ({"a.png": None, "a.txt": BOX, "classes.txt": "a\n\nb\n"}, "classes.txt, line 2: empty"),
    ],
)  # fmt: skip
def test_errors_of_bad_folders(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_yolo(write_files(tmp_path / "data", files))


@pytest.mark.parametrize("entry", ["../outside", "../../outside/pics", "/etc", "images/../../outside"])
def test_splits_cannot_refer_outside_the_folder(tmp_path: Path, entry: str) -> None:
    write_files(tmp_path, {"outside/x.png": None, "outside/x.txt": BOX, "outside/pics/y.png": None})
    files = {**SPLIT, "data.yaml": f"names: [a]\npath: {tmp_path}\ntrain: {entry}\nval: images/val\n"}
    table = read_yolo(write_files(tmp_path / "data", files))
    assert table.media.tolist() == ["images/train/a.png", "images/val/b.png"]
    assert table.split.tolist() == ["", "val"]
    assert "train of data.yaml not found" in table.notes.counts


def test_a_list_cannot_refer_outside_the_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    write_files(tmp_path / "data", {**SPLIT, "train.txt": "../secret.png"})
    with pytest.raises(DataError, match=r"1 of 1 images are not in .*: \.\./secret.png"):
        read_yolo(tmp_path / "data")


def test_images_in_another_folder(tmp_path: Path) -> None:
    labels = {"train/labels/a.txt": BOX, "val/labels/b.txt": BOX, "data.yaml": ROBOFLOW}
    write_files(tmp_path / "data", labels)
    write_files(tmp_path / "pics", {"x/a.png": None, "x/b.png": None, "x/c.png": None})
    with pytest.raises(DataError, match="2 of 2 annotation files have no image"):
        read_yolo(tmp_path / "data")
    table = read_yolo(tmp_path / "data", tmp_path / "pics")
    assert table.media.tolist() == ["x/a.png", "x/b.png"]
    assert table.split.tolist() == ["train", "val"]
    assert table.notes.counts["image found by its name alone, in an unexpected folder"] == 2
    write_files(tmp_path / "both", {"labels/a.txt": BOX, "images/a.png": None})
    assert read_yolo(tmp_path / "both/labels").root == (tmp_path / "both/images").resolve()
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        read_yolo(tmp_path / "data", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        read_yolo(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not a data.yaml"):
        read_yolo(tmp_path / "data/train/labels/a.txt")


def test_unicode_names(tmp_path: Path) -> None:
    files = {"images/ein Bär 猫.png": None, "labels/ein Bär 猫.txt": BOX}
    files |= {"images/e\u0301.png": None, "labels/\u00e9.txt": BOX}
    table = read_yolo(write_files(tmp_path, files))
    assert len(table) == 2
    assert table.instances_per_image().tolist() == [1, 1]


def test_an_image_rotated_by_exif_is_upright(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.txt": BOX})
    write_image(tmp_path / "a.jpg", orientation=6)
    table = read_yolo(tmp_path)
    assert table[0].size_hw == (40, 20)
    assert table.boxes_xywh.tolist() == [[7.5, 10, 5, 20]]
    assert "image rotated by EXIF: coordinates are assumed to refer to the upright image" in table.notes.counts


# --- format detection ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, None),
        ({"a.png": None}, None),
        ({"a.png": None, "README.txt": "0 0.5 0.5 0.5 0.5"}, None),
        ({"a.png": None, "a.txt": "a photo of a cat"}, None),  # captions
        ({"a.png": None, "a.txt": "car 0 0 0 1 2 3 4 5"}, None),  # KITTI
        ({"a.png": None, "a.txt": "1 10 20 30 40"}, "YOLO: 1 label files in ."),  # pixels, which the reader names
        ({"a.png": None, "a.txt": BOX}, "YOLO: 1 label files in ."),
        ({"a.png": None, "a.txt": "", "b.png": None, "b.txt": BOX}, "YOLO: 2 label files in ."),
        ({**SPLIT, "data.yaml": YAML}, "YOLO: data.yaml and 2 text files"),
        ({"data.yaml": YAML}, None),
        ({**SPLIT, "one.yaml": "names: [a]", "two.yaml": "names: [b]"}, "YOLO: 2 label files in labels/train, "
         "labels/val"),
    ],
)  # fmt: skip
def test_format_detection(tmp_path: Path, files: dict[str, Any], line: str | None) -> None:
    write_files(tmp_path, files)
    assert find_yolo(tmp_path, list_files(tmp_path)) == (line and Detected(line))


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


def make_builder(**options: Any) -> TableBuilder:
    return TableBuilder(ClassMap(("no", "ä: 猫"), (7, 9)), "nowhere", source="test", **options)


def ring(*points: float) -> list[np.ndarray]:
    return [np.array(points).reshape(-1, 2)]


def random_boxes(number: int) -> list[list[float]]:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(0, 300, (number, 2)), rng.uniform(1, 150, (number, 2))], axis=1).tolist()


@pytest.mark.parametrize("boxes", [[], [[2, 3, 10, 6]], [[0, 0, 640, 480]], random_boxes(300)])
def test_round_trip_of_boxes(tmp_path: Path, boxes: list[list[float]]) -> None:
    builder = make_builder()
    builder.add_image("a.png", (480, 640))
    for index, box in enumerate(boxes):
        builder.add_instance(box, index % 2 + 1)
    table = builder.build()
    written = write_yolo(table, tmp_path / "new")
    assert written.images == ["images/a.png"]
    copy_images(table, written, tmp_path / "new")
    again = read_yolo(tmp_path / "new")
    np.testing.assert_allclose(again.boxes_xywh, table.boxes_xywh, atol=1e-12 * 640, rtol=0)
    assert again.class_map == ClassMap(("no", "ä: 猫"), (0, 1))
    assert again.label.tolist() == table.label.tolist()
    assert "box clipped to the image" not in again.notes.counts


def test_round_trip_of_polygons_and_splits(tmp_path: Path) -> None:
    builder = make_builder()
    for name, split in (("train/images/a.png", "train"), ("val/images/a.png", "val"), ("c.png", "test")):
        builder.add_image(name, (480, 640), split=split)
        builder.add_instance(None, 1, segmentation=ring(1.5, 2, 100, 3, 50, 90.25))
        builder.add_instance(None, 2, segmentation=ring(0, 0, 640, 0, 640, 480, 0, 480))
    table = builder.build()
    written = write_yolo(table, tmp_path / "new")
    assert written.images == ["images/train/a.png", "images/val/a.png", "images/test/c.png"]
    assert not written.notes
    config = yaml.safe_load((tmp_path / "new/data.yaml").read_text())
    assert config == {
        "train": "images/train",
        "val": "images/val",
        "test": "images/test",
        "names": {0: "no", 1: "ä: 猫"},
    }
    copy_images(table, written, tmp_path / "new")
    again = read_yolo(tmp_path / "new")
    assert again.has_masks
    row_of = {str(name): index for index, name in enumerate(again.media)}
    for record, name in zip(table, written.images, strict=True):
        other = again[row_of[name]]
        assert other.split == record.split
        for original, reread in zip(record.segmentations, other.segmentations, strict=True):
            np.testing.assert_allclose(np.array(original), np.array(reread), atol=1e-12 * 640)
        np.testing.assert_allclose(other.areas, record.areas)


def test_round_trip_of_poses(tmp_path: Path) -> None:
    schema = keypoint_schema(["left_a", "right_a", "b"])
    builder = make_builder(keypoint_schema=schema)
    builder.add_image("a.png", (480, 640))
    points = np.array([[10, 20, 2], [30, 40, 1], [0, 0, 0.0]])
    builder.add_instance([1, 2, 50, 60], 1, keypoints=points, segmentation=ring(1, 2, 51, 2, 51, 62))
    table = builder.build()
    written = write_yolo(table, tmp_path / "new")
    assert "mask in a file of boxes or poses not written (only its box)" in written.notes.counts
    copy_images(table, written, tmp_path / "new")
    again = read_yolo(tmp_path / "new")
    assert again.keypoint_schema == schema
    assert again.keypoints is not None
    np.testing.assert_allclose(again.keypoints, [points], atol=1e-12 * 640)


def test_unsupported_fields_are_noted(tmp_path: Path) -> None:
    builder = make_builder()
    builder.add_image("a.png", (480, 640), split="train", group="g")
    builder.add_instance([1, 1, 5, 5], 1, iscrowd=True)
    builder.add_instance([1, 1, 5, 5], 1, ignore=True)
    builder.add_instance([1, 1, 5, 5], 1, difficult=True)
    builder.add_instance([0, 0, 5, 5], 1, segmentation=ring(0, 0, 5, 0, 5, 5) + ring(0, 0, 5, 5, 0, 5))
    builder.add_instance(None, 2, segmentation=mask_to_rle(np.eye(480, 640)))
    builder.add_instance(None, 2, segmentation=ring(1, 1, 9, 1, 9, 9))
    builder.add_image("b.png", (480, 640))
    builder.add_instance([1, 1, 30, 30], 1, segmentation=ring(-5, 1, 9, 1, 9, 9))
    table = builder.build()
    written = write_yolo(table, tmp_path / "new")
    assert written.images == ["images/train/a.png", "images/rest/b.png"]
    assert written.notes.counts == {
        "crowd or ignored object left out": 2,
        "difficult object written as an ordinary object": 1,
        "mask of several rings or RLE not written (only its box)": 2,
        "mask in a file of boxes or poses not written (only its box)": 1,
        "group of an image not written": 1,
        "polygon clipped to the image": 1,
        "box that differs from its polygon not written": 1,
        "image without a split in rest/, which data.yaml does not list": 1,
        "data.yaml without train or val, which YOLO training requires": 1,
    }
    lines = (tmp_path / "new/labels/train/a.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [5, 5, 5, 5]  # boxes and polygons are never in the same file
    copy_images(table, written, tmp_path / "new")
    again = read_yolo(tmp_path / "new")
    assert dict(zip(again.media.tolist(), again.split.tolist(), strict=True)) == {
        "images/train/a.png": "train",
        "images/rest/b.png": "",
    }


def test_a_rotated_image_is_written_upright(tmp_path: Path) -> None:
    write_image(tmp_path / "old/a.jpg", orientation=6)
    builder = TableBuilder(ClassMap(("a",)), tmp_path / "old", source="test")
    builder.add_image("a.jpg", HW, orientation=6, stored_frame=True)
    builder.add_instance([2, 10, 5, 20], 1)
    table = builder.build()
    written = write_yolo(table, tmp_path / "new")
    copy_images(table, written, tmp_path / "new")
    np.testing.assert_allclose(read_yolo(tmp_path / "new").boxes_xywh, [[2, 10, 5, 20]], atol=1e-12)


def test_tables_that_cannot_be_written(tmp_path: Path) -> None:
    builder = make_builder()
    builder.add_image("a.png", HW)
    builder.add_image("a.jpg", HW)
    table = builder.build()
    with pytest.raises(DataError, match=r"a.png and a.jpg differ only in their suffix"):
        write_yolo(table, tmp_path / "new")
    with pytest.raises(DataError, match="cannot store the classes of whole images"):
        write_yolo(replace(table, class_index=np.zeros((2, 1), np.int64)), tmp_path / "new")
    write_image(tmp_path / "full/a.png")
    with pytest.raises(DataError, match="full: the folder is not empty"):
        write_yolo(table.subset([0]), tmp_path / "full")
    written = write_yolo(table.subset([]), tmp_path / "empty")
    assert written.images == []


# --- real data -------------------------------------------------------------------------------------------------------

SIX_DECIMALS = [[0, 2, 4, 2], [3, 3, 2, 3]]


@pytest.mark.parametrize(
    ("name", "media", "boxes", "labels", "splits"),
    [
        ("yolo_dataset/strict", ["obj_train_data/1.jpg"], SIX_DECIMALS, [3, 5], ["train"]),
        ("yolo_dataset/labels", ["images/train/1.jpg", "images/val/1.jpg"], SIX_DECIMALS * 2, [3, 5, 3, 5],
         ["train", "val"]),
        ("yolo_dataset/annotations", ["Images/1.jpg"], SIX_DECIMALS, [3, 5], [""]),
        ("roboflow_dataset/yolo", ["train/images/train_001.jpg", "train/images/train_002.jpg",
         "val/images/val_001.jpg"], [[2, 1, 3, 1], [0, 0, 2, 4], [0, 0, 1, 2], [0, 0, 9, 1]], [1, 2, 1, 2],
         ["train", "train", "val"]),
    ],
)  # fmt: skip
def test_datumaro_samples(shared_data: Path, name: str, media: Any, boxes: Any, labels: Any, splits: Any) -> None:
    root = shared_data / "datumaro_assets/assets" / name
    assert find_yolo(root, list_files(root)) is not None
    table = read_yolo(root)
    assert table.media.tolist() == media
    np.testing.assert_allclose(table.boxes_xywh, boxes, atol=2e-5)
    assert table.label.tolist() == labels
    assert table.split.tolist() == splits
    assert "box clipped to the image" not in table.notes.counts


def test_rotated_boxes_and_predictions_are_rejected(shared_data: Path) -> None:
    with pytest.raises(DataError, match=r"train/labelTxt/train_001.txt, line 1: four corners and a class name"):
        read_yolo(shared_data / "datumaro_assets/assets/roboflow_dataset/yolo_obb")
    toy = shared_data / "padilla_metrics/toyexample"
    with pytest.raises(DataError, match=r"2007_000549.txt, line 1: 6 fields; .* are predictions"):
        read_yolo(toy / "dets_classid_rel_xcycwh", toy / "images")


def test_other_formats_are_not_detected_as_yolo(shared_data: Path) -> None:
    root = shared_data / "datumaro_assets/assets"
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in ("yolo_dataset", "roboflow_dataset"):
            assert find_yolo(path, list_files(path)) is None, path.name
