"""Image folders: one tree or split folders, class order, and what is left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import read, read_image_folder, split
from detseg.errors import DataError


def write_images(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.zeros((6, 9, 3), np.uint8))[1].tobytes())


def test_flowers(shared_data: Path) -> None:
    table = read(shared_data / "flowers")
    assert len(table) == 80
    assert table.class_map.names == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert [table.split.tolist().count(name) for name in ("train", "val")] == [60, 20]
    for record in table:
        assert table.class_map.names[int(record.class_index[0])] == record.path.parent.name
        assert not len(record)
    assert table.has_class_index
    assert not table.has_boxes
    subsets = split(table, by="stratified", val=0.25)
    assert np.bincount(subsets["val"].class_index[:, 0]).tolist() == [4] * 5


def test_one_tree(tmp_path: Path) -> None:
    write_images(tmp_path, "zebra/1.png", "bär/foto eins.png", "zebra/more/deep/2.PNG")
    table = read(tmp_path)
    assert table.class_map.names == ("bär", "zebra")
    assert table.class_index[:, 0].tolist() == [0, 1, 1]
    assert table.split.tolist() == ["", "", ""]
    assert table[0].stored_hw == (6, 9)
    assert not table.notes


def test_train_may_be_a_class(tmp_path: Path) -> None:
    write_images(tmp_path, "train/1.png", "bus/1.png")
    assert read(tmp_path).class_map.names == ("bus", "train")


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    write_images(tmp_path, "train/a/1.png", "train/b/1.png", "valid/a/2.png", "train/stray.png", "train/.hidden/x.png")
    (tmp_path / "train/a/notes.txt").write_text("x", encoding="utf-8")
    (tmp_path / "train/empty").mkdir()
    table = read(tmp_path)
    assert table.class_map.names == ("a", "b")
    assert table.split.tolist() == ["train", "train", "val"]
    assert table.notes.lines() == [
        "1 x file that is not an image left out: train/a/notes.txt",
        "1 x image outside any class folder left out: train/stray.png",
        "1 x folder without images not used as a class: train/empty",
    ]


def test_classes_select_and_order(tmp_path: Path) -> None:
    write_images(tmp_path, "a/1.png", "b/1.png", "c/1.png")
    table = read(tmp_path, classes=["c", "a"])
    assert table.class_map.names == ("c", "a")
    assert [(record.path.parent.name, int(record.class_index[0])) for record in table] == [("a", 1), ("c", 0)]
    assert any("b/1.png" in line for line in table.notes.lines())
    with pytest.raises(DataError, match="no class folder d; there are a, b, c"):
        read(tmp_path, classes=["a", "d"])


def test_a_single_class_needs_the_format(tmp_path: Path) -> None:
    write_images(tmp_path, "a/1.png", "a/2.png")
    with pytest.raises(DataError, match="with two or more classes"):
        read(tmp_path)
    assert len(read(tmp_path, format="folders")) == 2


def test_an_unreadable_image_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b/2.jpg").write_text("no image", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read: b/2\.jpg"):
        read(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in class folders"):
        read_image_folder(tmp_path)


def test_links_out_of_the_folder_are_rejected(tmp_path: Path) -> None:
    write_images(tmp_path, "data/a/1.png", "data/b/1.png", "outside/2.png")
    (tmp_path / "data/a/link.png").symlink_to(tmp_path / "data/a/1.png")
    assert len(read(tmp_path / "data")) == 3
    (tmp_path / "data/c").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="the link c points outside this folder"):
        read(tmp_path / "data")
