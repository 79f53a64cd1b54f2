"""Which files predict takes, and under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.errors import DataError
from detseg.inference.image_inputs import find_images


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("a/x.jpg", "a/deep/y.PNG", "a/notes.txt", "b/x.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_one_folder_names_relative_to_it(folders: Path) -> None:
    assert [name for _, name in find_images([str(folders / "a")])] == ["deep/y.PNG", "x.jpg"]


def test_equal_names_in_two_folders_stay_apart(folders: Path) -> None:
    names = [name for _, name in find_images([str(folders / "a"), str(folders / "b")])]
    assert names == ["a/deep/y.PNG", "a/x.jpg", "b/x.jpg"]


def test_equal_names_that_cannot_be_told_apart_are_refused(folders: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jpg is given twice"):
        find_images([str(folders / "a/x.jpg"), str(folders / "b/x.jpg")])


def test_nothing_found(folders: Path) -> None:
    (folders / "c").mkdir()
    with pytest.raises(DataError, match="no images here"):
        find_images([str(folders / "c")])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([str(folders / "nowhere")])
