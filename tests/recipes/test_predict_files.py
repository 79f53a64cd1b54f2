"""Image files that ``predict`` finds, and their names in the results."""

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


def test_names_are_relative_to_a_single_folder(folders: Path) -> None:
    assert [name for _, name in find_images([str(folders / "a")])] == ["deep/y.PNG", "x.jpg"]


def test_names_include_the_folder_for_several_folders(folders: Path) -> None:
    names = [name for _, name in find_images([str(folders / "a"), str(folders / "b")])]
    assert names == ["a/deep/y.PNG", "a/x.jpg", "b/x.jpg"]


def test_ambiguous_names_are_rejected(folders: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jpg occurs twice, and one result would replace the other"):
        find_images([str(folders / "a/x.jpg"), str(folders / "b/x.jpg")])


def test_no_images(folders: Path) -> None:
    (folders / "c").mkdir()
    with pytest.raises(DataError, match="no images found"):
        find_images([str(folders / "c")])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([str(folders / "nowhere")])
