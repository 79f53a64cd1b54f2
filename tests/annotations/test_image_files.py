"""Image files: found in the usual folders, with names in any language, never outside the image folder."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detseg.annotations.formats.coco import image_folders
from detseg.annotations.image_files import read_headers
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (30, 20)).save(path)
    return path


def find_image_files(
    names: list[str], annotations: Path, images: Path | None, split: str = "", **options: Any
) -> tuple[Path, list[str]]:
    source, notes = annotations.name, RepairLog()
    return image_folders.find_image_files(
        names, annotations, images, split, source, annotations.parent, notes, **options
    )


def json_at(path: Path) -> Path:
    """Only the location and the name of the annotation file matter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("file", "image_path"),
    [
        ("a.json", "a.png"),
        ("a.json", "images/a.png"),
        ("part.json", "part/a.png"),
        ("instances_train.json", "train/a.png"),
        ("annotations/instances_val2017.json", "val2017/a.png"),
        ("annotations/instances_val2017.json", "val/a.png"),
        ("annotations/instances_train.json", "images/train/a.png"),
        ("annotations/instances_train.json", "train2017/a.png"),
        ("annotations/labels.json", "images/a.png"),
        ("annotations/labels.json", "train/a.png"),
        ("valid/_annotations.coco.json", "valid/a.png"),
    ],
)
def test_usual_folders(tmp_path: Path, file: str, image_path: str) -> None:
    expected = image(tmp_path / image_path)
    root, names = find_image_files(["a.png"], json_at(tmp_path / file), None)
    assert (root / names[0]).resolve() == expected.resolve()
    root, names = find_image_files(["a.png"], json_at(tmp_path / "far" / "off" / "away" / "x.json"), expected.parent)
    assert (root, names) == (expected.parent, ["a.png"])


def test_no_names(tmp_path: Path) -> None:
    assert find_image_files([], tmp_path / "a.json", None) == (tmp_path, [])


def test_the_folder_of_the_split_is_used(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / split / "a.png")
    named, unnamed = (json_at(tmp_path / "json" / name) for name in ("instances_val.json", "labels.json"))
    assert find_image_files(["a.png"], named, None)[0].name == "val"
    assert find_image_files(["a.png"], unnamed, None, "val")[0].name == "val"
    assert find_image_files(["a.png"], named, tmp_path)[0].name == "val"
    with pytest.raises(DataError, match="pass their folder with --images"):  # ambiguous
        find_image_files(["a.png"], unnamed, None)


def test_missing_images_are_counted_and_listed(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(10)]
    with pytest.raises(
        DataError, match=r"a.json: 10 of 10 images are not in .*: 0.png, 1.png, 2.png, 3.png, 4.png, \.\.\.; .*--images"
    ):
        find_image_files(names, tmp_path / "a.json", None)
    image(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"9 of 10 images are not in .*: 0.png, 1.png, 2.png, 4.png, 5.png, \.\.\."):
        find_image_files(names, tmp_path / "a.json", None)
    with pytest.raises(FileNotFoundError, match="no such image folder"):
        find_image_files(names, tmp_path / "a.json", tmp_path / "nowhere")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["grün é 日本 .png", "sub folder/naïve.png", "привет й.png"])
def test_names_in_any_language(tmp_path: Path, name: str, stored: Any, form: Any) -> None:
    expected = image(tmp_path / unicodedata.normalize(stored, name))
    root, names = find_image_files([unicodedata.normalize(form, name)], tmp_path / "a.json", None)
    assert root / names[0] == expected


@pytest.mark.parametrize("name", ["train\\a.png", "train/a.png", "./train/a.png", "train/../train/a.png"])
def test_path_notations(tmp_path: Path, name: str) -> None:
    expected = image(tmp_path / "train" / "a.png")
    root, names = find_image_files([name], tmp_path / "a.json", None)
    assert (root / names[0]).resolve() == expected
    assert "\\" not in names[0]


@pytest.mark.parametrize("name", ["", ".", "\0", "http://example.org/a.png", "a" * 5000])
def test_names_that_are_not_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="1 of 1 images are not in"):
        find_image_files([name], tmp_path / "a.json", None)


@pytest.mark.parametrize("path_type", ["..", "absolute", "link", "link to a folder"])
def test_nothing_outside_the_folder_is_opened(tmp_path: Path, path_type: str) -> None:
    secret, inside = image(tmp_path / "secret" / "a.png"), tmp_path / "data"
    inside.mkdir()
    name = {"..": "../secret/a.png", "absolute": str(secret), "link": "l.png", "link to a folder": "l/a.png"}[path_type]
    if path_type == "link":
        (inside / "l.png").symlink_to(secret)
    if path_type == "link to a folder":
        (inside / "l").symlink_to(secret.parent)
    for images in (None, inside):
        with pytest.raises(DataError, match=r"a\.json: 1 of 1 images are not in .*") as refused:
            find_image_files([name], inside / "a.json", images)
        assert ("--follow-links" in str(refused.value)) == path_type.startswith("link")
        assert ("--images" in str(refused.value).rpartition("--images ")[0]) is False
        if path_type.startswith("link"):  # control: the file is there
            assert find_image_files([name], inside / "a.json", images, follow_links=True) == (inside, [name])


def test_links_and_absolute_names_inside_are_fine(tmp_path: Path) -> None:
    real = image(tmp_path / "real" / "a.png")
    (tmp_path / "l.png").symlink_to(real)
    assert find_image_files(["l.png", str(real)], tmp_path / "a.json", None) == (tmp_path, ["l.png", "real/a.png"])


def test_headers_of_many_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_headers(tmp_path, [], "a.json") == []
    names = [image(tmp_path / f"{i}.png").name for i in range(20)]
    assert [header.size_hw for header in read_headers(tmp_path, names, "a.json")] == [(20, 30)] * 20
    assert capsys.readouterr().err == ""  # no progress bar without a terminal
    for i in range(7):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"a.json: 7 of 20 images cannot be read: 0.png \(.*, 4.png \(.*\), \.\.\.; replace"
    ):
        read_headers(tmp_path, names, "a.json")
