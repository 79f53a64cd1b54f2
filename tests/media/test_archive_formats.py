"""Every format is read from archives as from the folder, wherever its files are."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg import read
from detseg.annotations import AnnotationTable
from detseg.annotations.fingerprint import differences, fingerprint
from detseg.annotations.formats.all_formats import FORMATS
from detseg.images import IMAGE_SUFFIXES, decode_image
from tests.annotations.one_image import ONE_IMAGE, put
from tests.annotations.test_formats import make_table
from tests.media.archives import KINDS, assert_equal_tables, moved_into, pack


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def make_masks(root: Path) -> None:
    for number in range(3):
        put(root / f"images/{number}.png", image(number))
        mask = np.zeros((20, 30), np.uint8)
        mask[5:10, 3 + number : 20] = 1
        put(root / f"masks/{number}.png", cv2.imencode(".png", mask)[1].tobytes())


def make_folders(root: Path) -> None:
    for number in range(6):
        put(root / ("train" if number < 4 else "val") / ("cat", "dog")[number % 2] / f"{number}.png", image(number))


def make_set(format: str, root: Path) -> Path:
    """A data set in a format, with images of different content."""
    if format == "masks":
        make_masks(root)
        return root
    if format == "folders":
        make_folders(root)
        return root
    source = root.parent / "source"
    table = make_table(source)
    for number, record in enumerate(table):
        pixels = np.random.default_rng(number).integers(0, 255, (*record.stored_hw, 3), np.uint8)
        record.path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    writer = next(entry for entry in FORMATS if entry.name == format).write
    assert writer is not None
    written = writer(table, root)
    for record, name in zip(table, written.images, strict=True):
        put(root / name, record.path.read_bytes())
    shutil.rmtree(source)
    return root


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def pixels(table: AnnotationTable) -> list[bytes]:
    return [decode_image(record.path).tobytes() for record in table]


DETECTION = [format.name for format in FORMATS if format.write is not None and format.name not in ("masks", "folders")]
NAMES = [*DETECTION, "masks", "folders"]


@pytest.mark.parametrize("format", ONE_IMAGE)
@pytest.mark.parametrize("top", ["", "set"])
def test_formats_of_other_tools(format: str, top: str, tmp_path: Path) -> None:
    put(tmp_path / "set/images/a.png")
    ONE_IMAGE[format](tmp_path / "set", "a.png", "images/a.png")
    expected = read(tmp_path / "set")
    assert_equal_tables(read(moved_into(tmp_path / "set", tmp_path / "data.zip", top=top)), expected)


@pytest.mark.parametrize("format", NAMES)
@pytest.mark.parametrize("kind", [".zip", ".tar", ".tgz"])
def test_a_whole_set_in_an_archive(format: str, kind: str, tmp_path: Path) -> None:
    root = make_set(format, tmp_path / "set")
    expected = read(root)
    before, splits = fingerprint({"all": expected}), pixels(expected)
    pack(root, tmp_path / f"flat{kind}")
    moved_into(root, tmp_path / f"set{kind}", top="set")
    for name in ("flat", "set"):
        table = read(tmp_path / f"{name}{kind}")
        assert_equal_tables(table, expected)
        assert pixels(table) == splits
        assert differences(before, fingerprint({"all": table}), {"all": table}) == []
    inside = read(tmp_path / f"set{kind}" / "set")
    assert_equal_tables(inside, expected)


@pytest.mark.parametrize("format", NAMES)
def test_a_folder_with_one_archive(format: str, tmp_path: Path) -> None:
    expected = read(make_set(format, tmp_path / "set"))
    moved_into(tmp_path / "set", tmp_path / "data/download.zip")
    put(tmp_path / "data/README.md", "words")
    assert_equal_tables(read(tmp_path / "data"), expected)


@pytest.mark.parametrize("format", NAMES)
def test_a_backup_beside_its_set_doubles_nothing(format: str, tmp_path: Path) -> None:
    root = make_set(format, tmp_path / "set")
    expected = read(root)
    moved_into(Path(shutil.copytree(root, tmp_path / "copy")), root / "backup.zip")
    table = read(root)
    assert_equal_tables(table, expected)
    assert not any("backup.zip" in str(record.path) for record in table)


@pytest.mark.parametrize("format", DETECTION)
@pytest.mark.parametrize("top", ["", "images"])
def test_annotations_beside_an_archive_of_images(format: str, top: str, tmp_path: Path) -> None:
    root = make_set(format, tmp_path / "set")
    expected = read(root)
    below = root / "images" if (root / "images").is_dir() else root
    files = [path for path in below.rglob("*") if path.is_file() and is_image(path)]
    for path in files:
        put(tmp_path / "only images" / path.relative_to(below), path.read_bytes())
        path.unlink()
    pack(tmp_path / "only images", root / "images.zip", top=top)
    shutil.move(tmp_path / "only images", root.parent / "elsewhere")
    assert_equal_tables(read(root), expected, columns=("height", "width", "boxes_xywh", "label"))
    (root / "images.zip").rename(tmp_path / "photos.zip")
    table = read(root, images=tmp_path / "photos.zip")
    assert_equal_tables(table, expected, columns=("height", "width", "boxes_xywh", "label"))
    assert all(str(record.path).startswith(f"{tmp_path}/photos.zip/") for record in table)


@pytest.mark.parametrize("top", [False, True])
def test_images_and_masks_in_two_archives(top: bool, tmp_path: Path) -> None:
    make_masks(tmp_path / "set")
    expected = read(tmp_path / "set")
    for name in ("images", "masks"):
        moved_into(tmp_path / "set" / name, tmp_path / f"set/{name}.zip", top=name if top else "")
    assert_equal_tables(read(tmp_path / "set"), expected)


@pytest.mark.parametrize("top", [False, True])
def test_classes_and_splits_in_archives(top: bool, tmp_path: Path) -> None:
    make_folders(tmp_path / "set")
    expected = read(tmp_path / "set")
    for name in ("train", "val"):
        moved_into(tmp_path / "set" / name, tmp_path / f"set/{name}.tar", top=name if top else "")
    assert_equal_tables(read(tmp_path / "set"), expected)
    for name in ("cat", "dog"):
        put(tmp_path / name / "1.png", image(1))
        moved_into(tmp_path / name, tmp_path / f"pets/{name}.zip", top=name if top else "")
    assert read(tmp_path / "pets").class_map.names == ("cat", "dog")


def test_the_archives_of_coco(tmp_path: Path) -> None:
    """The downloads of COCO in one folder: annotations_trainval2017.zip, train2017.zip, val2017.zip."""
    root = make_set("coco", tmp_path / "set")
    expected = read(root)
    for name in ("train", "val"):
        shutil.move(root / "images" / name, tmp_path / f"{name}2017")
        [file] = root.rglob(f"*{name}*.json")
        text = file.read_text(encoding="utf-8").replace(f'"{name}/', '"')
        put(tmp_path / f"annotations/instances_{name}2017.json", text)
        moved_into(tmp_path / f"{name}2017", tmp_path / f"downloads/{name}2017.zip", top=f"{name}2017")
    pack(tmp_path / "annotations", tmp_path / "downloads/annotations_trainval2017.zip", top="annotations")
    assert_equal_tables(read(tmp_path / "downloads"), expected)
    (tmp_path / "downloads/annotations_trainval2017.zip").unlink()
    shutil.move(tmp_path / "annotations", tmp_path / "downloads/annotations")
    assert_equal_tables(read(tmp_path / "downloads"), expected)
    one = read(tmp_path / "downloads/annotations/instances_val2017.json")
    assert len(one) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_archive(kind: str, tmp_path: Path) -> None:
    root = make_set("yolo", tmp_path / "set")
    put(root / "__MACOSX/images/._a.png", "resource fork")
    put(root / ".DS_Store", "hidden")
    expected = read(root)
    table = read(moved_into(root, tmp_path / f"set{kind}", top="set"))
    assert_equal_tables(table, expected)
