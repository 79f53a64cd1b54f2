"""Image files found by names written on any machine; more in test_shapes.py."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from detseg.annotations.image_lookup import ImageLookup, ImageReference, look_up_images
from detseg.annotations.image_names import MOVED
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError


def lookup_in(root: Path, files: list[str]) -> ImageLookup:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return ImageLookup(root)


TWO_SPLITS = ["train/images/a.png", "val/images/a.png"]


@pytest.mark.parametrize(
    ("files", "reference", "expected", "moved"),
    [
        ([], ImageReference("a.png"), [], False),
        (["a.png"], ImageReference(""), [], False),
        (["a.png"], ImageReference(".."), [], False),
        (["a.png"], ImageReference("a.png"), ["a.png"], False),
        (["a.png"], ImageReference("./a.png"), ["a.png"], False),
        (["a.txt"], ImageReference("a.txt"), [], False),
        (["x/y/a.png"], ImageReference("a.png"), ["x/y/a.png"], False),
        (["x/y/a.png"], ImageReference("y\\a.png"), ["x/y/a.png"], False),
        (["x/y/a.png"], ImageReference("z/a.png"), ["x/y/a.png"], True),
        (["x/y/a.png"], ImageReference("/home/me/a.png"), ["x/y/a.png"], True),
        (["x/y/a.png"], ImageReference("file:///home/me/y/a.png"), ["x/y/a.png"], True),
        (["images/a.png"], ImageReference("../images/a.png", folder="labels"), ["images/a.png"], False),
        (["a.jpeg"], ImageReference("a"), ["a.jpeg"], False),
        (["x/a.jpeg", "y/a.png"], ImageReference("x/a"), ["x/a.jpeg"], False),
        (["a.b.png"], ImageReference("a.b"), ["a.b.png"], False),
        (["xa.png"], ImageReference("a.png"), [], False),
        (TWO_SPLITS, ImageReference("a.png"), TWO_SPLITS, False),
        (TWO_SPLITS, ImageReference("a.png", folder="val"), ["val/images/a.png"], False),
        (TWO_SPLITS, ImageReference("a.png", subset="train"), ["train/images/a.png"], False),
        (TWO_SPLITS, ImageReference("a.png", subset="Train"), ["train/images/a.png"], False),
        (["a.png", "x/a.png"], ImageReference("a.png", subset="Train"), ["a.png"], False),
        (["images/a.png", "x/a.png"], ImageReference("a.png"), ["images/a.png"], False),
    ],
)
def test_names(tmp_path: Path, files: list[str], reference: ImageReference, expected: list[str], moved: bool) -> None:
    assert lookup_in(tmp_path, files).find(reference) == (expected, MOVED if moved else "")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize(form, "é.png")
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "é.png")
    assert lookup_in(tmp_path, [name]).find(ImageReference(other)) == ([name], "")


def test_a_link_out_of_the_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"links to other folders are not followed \(a\.png to .*pass --follow-links"):
        look_up_images([ImageReference("a.png")], tmp_path / "in", None, "set", RepairLog())
