"""Read any format: format detection, concatenation of files, error messages if no format matches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import find_format, read, split
from detseg.annotations.formats.all_formats import FORMATS
from detseg.errors import DataError

IMAGE = cv2.imencode(".png", np.zeros((6, 9, 3), np.uint8))[1].tobytes()


def coco(*names: str, categories: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": name, "height": 6, "width": 9} for i, name in enumerate(names, start=1)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3], "area": 9, "iscrowd": 0}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories, start=1)],
    }


def write(root: Path, files: dict[str, Any]) -> Path:
    """Write an image if the content is None, else JSON or text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.write_bytes(IMAGE)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


def test_coco_open_is_read_from_two_files(shared_data: Path) -> None:
    table = read(shared_data / "coco_open")
    assert len(table) == 46
    assert len(table.instance_rows()) == 339
    assert [table.split.tolist().count(name) for name in ("train", "val")] == [33, 13]
    assert all(record.path.is_file() for record in table)
    assert len(np.unique(table.image_id)) == 46
    assert table.has_masks
    splits = split(table)
    assert {name: len(images) for name, images in splits.items()} == {"train": 33, "val": 13}
    alone = read(shared_data / "coco_open/instances_val.json")
    assert len(alone) == 13
    by_id = {record.image_id: record for record in splits["val"]}
    for record in alone:
        assert record.boxes_xywh.tolist() == by_id[record.image_id].boxes_xywh.tolist()
        assert record.labels.tolist() == by_id[record.image_id].labels.tolist()
        assert record.path == by_id[record.image_id].path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.json": coco("a.png"), "a.png": None}, [("a.json", "")]),
        ({"annotations/x.json": coco("a.png"), "a.png": None}, [("annotations/x.json", "")]),
        (
            {
                "annotations/instances_val2017.json": coco("v.png"),
                "annotations/instances_train2017.json": coco("t.png"),
            },
            [("annotations/instances_train2017.json", "train"), ("annotations/instances_val2017.json", "val")],
        ),
        (
            {
                "train/_annotations.coco.json": coco("a.png"),
                "valid/_annotations.coco.json": coco("b.png"),
                "test/_annotations.coco.json": coco("c.png"),
            },
            [
                ("train/_annotations.coco.json", "train"),
                ("valid/_annotations.coco.json", "val"),
                ("test/_annotations.coco.json", "test"),
            ],
        ),
        ({"gt.json": coco("a.png"), "dt_results.json": [{"image_id": 1}], "config.json": {"a": 1}}, [("gt.json", "")]),
        (
            {"annotations/instances_train.json": coco("a.png"), "annotations/captions_train.json": coco("a.png")},
            [("annotations/instances_train.json", "train")],
        ),
    ],
)
def test_coco_files(files: dict[str, Any], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    layout = find_format(write(tmp_path, files))
    assert layout.format == "coco"
    assert list(layout.parts) == expected


def test_three_splits_from_three_folders(tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for name in ("train", "valid", "test"):
        files |= {f"{name}/_annotations.coco.json": coco(f"{name}.png"), f"{name}/{name}.png": None}
    table = read(write(tmp_path, files))
    assert table.split.tolist() == ["train", "val", "test"]
    assert [record.path.name for record in table] == ["train.png", "valid.png", "test.png"]
    assert table.image_id.tolist() == [1, 2, 3]
    assert any("renumbered" in line for line in table.notes.lines())
    assert all(len(record) == 1 and record.path.is_file() for record in table)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (coco("a.png", categories=()), "annotation 1 .*: category_id 1 is not among"),
        (coco("gone.png"), "1 of 1 images are not in"),
        ({"images": 3, "annotations": []}, ".*1 x images: expected a list of objects, got 3"),
        ('{"images": [], "annotations": [', "truncated"),
    ],
)
def test_message_has_the_folder_of_files_with_equal_names(second: Any, message: str, tmp_path: Path) -> None:
    files: dict[str, Any] = {"train/a.png": None, "valid/a.png": None, "train/_annotations.coco.json": coco("a.png")}
    with pytest.raises(DataError, match=rf"^valid/_annotations\.coco\.json[:,] .*{message}"):
        read(write(tmp_path, files | {"valid/_annotations.coco.json": second}))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no known data set was found; it contains no files; accepted formats:"),
        (
            {"a.png": None, "b.txt": "x", "sub/c.xml": "x"},
            r"1 x \.png, 1 x \.txt, 1 x \.xml in the folders sub; accepted",
        ),
        ({"images/a.png": None, "masks/b.png": None}, "PNG masks named like their image"),
        ({"images/a.png": None, "notes/a.txt": "words"}, "no known data set"),
        (
            {"a.json": coco("a.png"), "b.json": coco("a.png")},
            r"several annotation files \(a\.json, b\.json\); pass one",
        ),
        ({"train.json": coco("a.png"), "b.json": coco("a.png")}, r"b\.json does not specify its split"),
        ({"train_a.json": coco("a.png"), "train_b.json": coco("a.png")}, r"several annotation files for train"),
        ({"gt.json": '{"images": [], "annotations": [', "a.png": None}, r"gt\.json: .*export the file again"),
        (
            {"train.json": coco("a.png"), "val.json": coco("a.png", categories=("dog", "cat")), "a.png": None},
            "give every class the same id in all files",
        ),
    ],
)
def test_rejected_data(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, files))


def test_a_single_subfolder_is_descended_into(tmp_path: Path) -> None:
    write(tmp_path, {"README.md": "x", "set/v1/train/a/1.png": None, "set/v1/train/b/1.png": None})
    layout = find_format(tmp_path)
    assert layout.root == tmp_path / "set/v1"
    assert layout.explanation == "image folder: 2 classes in train (a, b)"


def test_images_without_a_folder_are_not_class_folders(tmp_path: Path) -> None:
    write(tmp_path, {"1.png": None, "2.png": None, "3.png": None, "a/4.png": None, "b/5.png": None})
    with pytest.raises(DataError, match="no known data set"):
        read(tmp_path)


ABSENT = [format.name for format in FORMATS if format.name not in ("coco", "masks", "folders")]
"""Formats that class folders are not in, whatever they look like."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pascal"}, f"choose {', '.join(format.name for format in FORMATS)}"),
        ({"format": "coco"}, "no coco data set"),
        ({"format": "folders", "mask_values": "class"}, "pass only one of the two"),
        ({"mask_values": "class"}, "no masks data set"),
        ({"classes": []}, "classes is an empty list"),
        ({"one_based": True}, "only Pascal VOC may be one-based"),
        *(({"format": name}, f"no {name} data set") for name in ABSENT),
        ({"images": "."}, "omit --images"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, {"a/1.png": None, "b/1.png": None})
    with pytest.raises(DataError, match=message):
        read(tmp_path, **options)


def test_missing_paths_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        read(tmp_path, images=tmp_path / "nothing", mask_values="class")
    (tmp_path / "a.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="a file must be a known annotation file; accepted formats:"):
        read(tmp_path / "a.txt")
    (tmp_path / "a.csv").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="a file must be a voc annotation file"):
        read(tmp_path / "a.csv", format="voc")


def test_images_in_another_folder(tmp_path: Path) -> None:
    write(tmp_path, {"labels/gt.json": coco("a b ü.png"), "images/a b ü.png": None})
    table = read(tmp_path / "labels", images=tmp_path / "images")
    assert table[0].path.is_file()
    assert table.source.endswith("(COCO: gt.json)")
