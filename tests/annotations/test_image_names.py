"""Image names as tools and other machines write them, in every format: read from the right file, and noted."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.annotations import read
from detseg.annotations.image_names import MOVED, PERCENT, SPELLING, UPLOAD, URL, spellings
from detseg.annotations.listing import IMAGE_FOLDERS
from detseg.errors import DataError
from tests.annotations.one_image import ONE_IMAGE, put

URI = base64.b64encode(b"s3://bucket/set1/a.png").decode()
OTHER = ("set2/a.png",)  # a file that only the folder in the name tells apart

KINDS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "absolute path": ("/home/u/proj/images/a.png", "images/a.png", (), MOVED),
    "end of the path": ("/home/u/set1/a.png", "set1/a.png", OTHER, MOVED),
    "leading slash": ("/images/a.png", "images/a.png", (), MOVED),
    "Windows path": ("C:\\data\\images\\a.png", "images/a.png", (), MOVED),
    "Label Studio storage": ("..\\..\\media\\upload\\4\\cb0618f6-a.png", "images/cb0618f6-a.png", (), MOVED),
    "climbing path": ("../../../etc/a.png", "images/a.png", (), MOVED),
    "web address": ("https://example.org/bucket/x/a.png", "images/a.png", (), MOVED),
    "web address with a query": ("https://example.org/x/a.png?token=1/2", "images/a.png", (), URL),
    "file address": ("file:///home/u/a.png", "images/a.png", (), MOVED),
    "percent": ("my%20image.png", "images/my image.png", (), PERCENT),
    "Label Studio local files": ("/data/local-files/?d=set1/a.png", "set1/a.png", OTHER, URL),
    "Label Studio bucket": (f"/tasks/3/resolve/?fileuri={URI}", "set1/a.png", OTHER, URL),
    "Label Studio upload": ("/data/upload/4/cb0618f7-a_b.png", "images/a b.png", (), UPLOAD),
    "case": ("A.png", "images/a.PNG", (), SPELLING),
    "blanks": ("a  b.png", "images/a b.png", (), SPELLING),
    "missing suffix": ("a", "images/a.png", (), ""),
    "CVAT subset folder": ("0001.png", "images/Train/Data/0001.png", (), ""),
}
"""Kind -> (name in the annotation, image file, another file, note; "" for none)."""

NOTE_OF_PAIRS = {"voc": "image found by its name alone, in an unexpected folder"}
YOLO_NOTE = "image of a list found at another path than stated"


def as_written(root: Path, stated: str) -> Path | None:
    """The rule without other spellings: the path as written, in the folder or in an image folder."""
    folders = (root, *(root / name for name in IMAGE_FOLDERS))
    return next((folder / stated for folder in folders if (folder / stated).is_file()), None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", ONE_IMAGE)
def test_names_of_other_tools(format: str, kind: str, tmp_path: Path) -> None:
    stated, stored, others, note = KINDS[kind]
    for name in (stored, *others):
        put(tmp_path / name)
    ONE_IMAGE[format](tmp_path, stated, stored)
    assert as_written(tmp_path, stated) is None  # control: the plain rule does not find it
    if format == "yolo" and others:
        pytest.skip("not applicable: both images would share the label file of their name")
    table = read(tmp_path)
    assert [record.path for record in table] == [tmp_path / stored]
    if format == "yolo":
        assert table.split.tolist() == ["train"]
        note = "" if kind == "leading slash" else YOLO_NOTE  # paths of a list are relative to the data folder
    assert note in table.notes.counts or (note or NOTE_OF_PAIRS.get(format, "")) in ("", *table.notes.counts)
    if note == "" and format != "voc":
        assert not table.notes


@pytest.mark.parametrize("format", ONE_IMAGE)
def test_ambiguous_names_are_named(format: str, tmp_path: Path) -> None:
    for name in ("x/a.png", "y/a.png"):
        put(tmp_path / name)
    ONE_IMAGE[format](tmp_path, "/home/u/a.png", "x/a.png")
    with pytest.raises(DataError, match=r"x/a\.png, y/a\.png"):
        read(tmp_path)


@pytest.mark.parametrize("format", [name for name in ONE_IMAGE if name != "yolo"])
def test_a_similar_file_of_another_image_is_not_taken(format: str, tmp_path: Path) -> None:
    """Not applicable to YOLO: the label file names the image."""
    put(tmp_path / "images/a.png")
    ONE_IMAGE[format](tmp_path, "b.png", "images/a.png")
    with pytest.raises(DataError, match=r"--images") as refused:
        read(tmp_path)
    with pytest.raises(DataError) as again:
        read(tmp_path, images=tmp_path / "images")
    assert "pass the folder" in str(refused.value)
    assert "pass the folder" not in str(again.value)  # that remedy was followed
    assert f"--images {tmp_path / 'images'} was searched" in str(again.value)


@pytest.mark.parametrize("format", ["coco", "voc", "cvat", "labelme"])
def test_an_image_of_another_size(format: str, tmp_path: Path) -> None:
    """Not applicable to the other formats: they do not state the size."""
    put(tmp_path / "images/a.png", cv2.imencode(".png", np.zeros((20, 31), np.uint8))[1].tobytes())
    ONE_IMAGE[format](tmp_path, "a.png", "images/a.png")
    with pytest.raises(DataError, match=r"pass the images that were annotated \(--images\)"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"replace the files in .* by the images that were annotated"):
        read(tmp_path, images=tmp_path / "images")


def test_a_name_in_other_case_is_not_given_twice(tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    put(tmp_path / "boxes.csv", "filename,xmin,ymin,xmax,ymax,class\na.png,1,2,4,6,bolt\nA.png,1,2,4,6,bolt\n")
    with pytest.raises(DataError, match=r"A\.png is not among the images, .* a\.png is that of a\.png"):
        read(tmp_path)


def test_a_mask_in_other_case(tmp_path: Path) -> None:
    """Masks and class folders have no image names inside; only the spelling of the mask's own name can differ."""
    put(tmp_path / "images/Shot 1.png")
    put(tmp_path / "masks/shot 1.png")
    put(tmp_path / "images/b.png")
    put(tmp_path / "masks/b.png")
    table = read(tmp_path, mask_values="binary")
    assert len(table) == 2
    assert "mask of an image whose name has other upper and lower case or blanks" in table.notes.counts


@pytest.mark.parametrize(
    "name", ["http://[x/a.png", "?", "%", "/data/?fileuri=%%%", "/data/?fileuri=/w==", "\0?d=a.png"]
)
def test_odd_names_end_without_an_error(name: str) -> None:
    assert (name, "") in list(spellings(name))


FIELD_CASES = (
    "A01_ls_backslash_storage", "A03_absolute", "A04_url", "A05_mixed", "A07_localfiles", "A09_case",
    "A10b_cvat_nested_base", "A11_percent", "A13_leading_slash",
)  # fmt: skip


@pytest.mark.parametrize("case", FIELD_CASES)
def test_field_cases(case: str, shared_data: Path) -> None:
    folder = shared_data / "field_cases" / case
    if not folder.is_dir():
        pytest.skip(f"{folder} is not present")
    for images in (None, folder if case == "A05_mixed" else folder / "images"):
        table = read(folder, images=images)
        assert len(table) > 0
        assert all(record.path.is_file() and folder in record.path.parents for record in table)
        assert bool(table.notes) == (case != "A10b_cvat_nested_base")
