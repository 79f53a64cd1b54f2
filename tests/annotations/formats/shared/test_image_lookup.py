"""Images found by names of any machine; more in test_drawn.py."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from detseg.annotations.formats.shared.image_lookup import ImageLookup, Wanted, look_up_images
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError


def folder(root: Path, files: list[str]) -> ImageLookup:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return ImageLookup(root)


TWO = ["train/images/a.png", "val/images/a.png"]


@pytest.mark.parametrize(
    ("files", "wanted", "found", "by_end"),
    [
        ([], Wanted("a.png"), [], False),
        (["a.png"], Wanted(""), [], False),
        (["a.png"], Wanted(".."), [], False),
        (["a.png"], Wanted("a.png"), ["a.png"], False),
        (["a.png"], Wanted("./a.png"), ["a.png"], False),
        (["a.txt"], Wanted("a.txt"), [], False),
        (["x/y/a.png"], Wanted("a.png"), ["x/y/a.png"], False),
        (["x/y/a.png"], Wanted("y\\a.png"), ["x/y/a.png"], False),
        (["x/y/a.png"], Wanted("z/a.png"), ["x/y/a.png"], True),
        (["x/y/a.png"], Wanted("/home/me/a.png"), ["x/y/a.png"], True),
        (["x/y/a.png"], Wanted("file:///home/me/y/a.png"), ["x/y/a.png"], True),
        (["images/a.png"], Wanted("../images/a.png", near="labels"), ["images/a.png"], False),
        (["a.jpeg"], Wanted("a"), ["a.jpeg"], False),
        (["x/a.jpeg", "y/a.png"], Wanted("x/a"), ["x/a.jpeg"], False),
        (["a.b.png"], Wanted("a.b"), ["a.b.png"], False),
        (["xa.png"], Wanted("a.png"), [], False),
        (TWO, Wanted("a.png"), TWO, False),
        (TWO, Wanted("a.png", near="val"), ["val/images/a.png"], False),
        (TWO, Wanted("a.png", part="train"), ["train/images/a.png"], False),
        (TWO, Wanted("a.png", part="Train"), ["train/images/a.png"], False),
        (["a.png", "x/a.png"], Wanted("a.png", part="Train"), ["a.png"], False),
        (["images/a.png", "x/a.png"], Wanted("a.png"), ["images/a.png"], False),
    ],
)
def test_names(tmp_path: Path, files: list[str], wanted: Wanted, found: list[str], by_end: bool) -> None:
    assert folder(tmp_path, files).find(wanted) == (found, by_end)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms(tmp_path: Path, form: str) -> None:
    name = unicodedata.normalize(form, "é.png")
    other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "é.png")
    assert folder(tmp_path, [name]).find(Wanted(other)) == ([name], False)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").touch()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match="leads out of this folder"):
        look_up_images([Wanted("a.png")], tmp_path / "in", None, "set", RepairLog())
