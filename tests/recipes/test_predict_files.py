"""Image files that ``predict`` finds, and their names in the results."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from detseg.annotations.repair_log import RepairLog
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
    assert [name for _, name in find_images([str(folders / "a")], RepairLog())] == ["deep/y.PNG", "x.jpg"]


def test_names_include_the_folder_for_several_folders(folders: Path) -> None:
    names = [name for _, name in find_images([str(folders / "a"), str(folders / "b")], RepairLog())]
    assert names == ["a/deep/y.PNG", "a/x.jpg", "b/x.jpg"]


def test_names_that_occur_twice_are_longer(folders: Path) -> None:
    notes = RepairLog()
    files = [str(folders / name) for name in ("a/x.jpg", "b/x.jpg", "a/deep/y.PNG", "b/x.jpg")]
    assert [name for _, name in find_images(files, notes)] == ["a/x.jpg", "b/x.jpg", "a/deep/y.PNG"]
    assert notes.lines() == [
        f"1 x file name that occurs twice; names in the results are relative to {folders}: x.jpg",
        "1 x file that was passed twice is predicted once: b/x.jpg",
    ]
    (folders / "c").mkdir()
    (folders / "b").rename(folders / "c/a")
    both = [str(folders / "a"), str(folders / "c/a")]
    assert [name for _, name in find_images(both, notes)] == ["a/deep/y.PNG", "a/x.jpg", "c/a/x.jpg"]


def test_names_that_are_equal_after_the_escape(folders: Path) -> None:
    try:
        for name in (b"c/\xe9.jpg", b"c/\\xe9.jpg"):
            path = folders / os.fsdecode(name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    except OSError as error:
        pytest.skip(f"this file system does not allow such names: {error}")
    found = find_images([str(folders / "c")], RepairLog())
    assert sorted(name for _, name in found) == ["\\xe9.jpg", "\\xe9~2.jpg"]
    assert len({path for path, _ in found}) == 2


def test_no_images(folders: Path) -> None:
    (folders / "c").mkdir()
    with pytest.raises(DataError, match="no images found"):
        find_images([str(folders / "c")], RepairLog())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images([str(folders / "nowhere")], RepairLog())


def test_nothing_is_left_out_silently(folders: Path) -> None:
    outside = folders / "outside"
    (outside / "in").mkdir(parents=True)
    for name in ("a/.hidden.jpg", "a/.DS_Store", "outside/z.jpg", "outside/in/y.jpg"):
        (folders / name).write_bytes(b"")
    (folders / "a/file.jpg").symlink_to(outside / "z.jpg")
    (folders / "a/folder").symlink_to(outside / "in")
    (folders / "a/loop").symlink_to(folders / "a")
    notes = RepairLog()
    assert [name for _, name in find_images([str(folders / "a")], notes)] == ["deep/y.PNG", "x.jpg"]
    assert notes.counts == {
        "file without the suffix of an image left out": 1,
        "link to another folder not followed, pass --follow-links": 2,
        "hidden file or folder left out": 1,
    }
    names = [name for _, name in find_images([str(folders / "a")], RepairLog(), follow_links=True)]
    assert names == ["deep/y.PNG", "file.jpg", "folder/y.jpg", "x.jpg"]


def test_a_folder_of_links_only(folders: Path) -> None:
    (folders / "c").mkdir()
    (folders / "c/b").symlink_to(folders / "b")
    with pytest.raises(DataError, match=r"no images found; .*\(b to .*pass --follow-links"):
        find_images([str(folders / "c")], RepairLog())
    assert len(find_images([str(folders / "c")], RepairLog(), follow_links=True)) == 1


def test_patterns_that_the_shell_did_not_expand(folders: Path) -> None:
    notes = RepairLog()
    found = [name for _, name in find_images([str(folders / "a/**/*")], notes)]
    assert found == ["y.PNG", "x.jpg"]
    assert [line.partition(":")[0] for line in notes.lines()] == ["1 x file without the suffix of an image left out"]
    assert [name for _, name in find_images([str(folders / "a/*")], notes)] == ["y.PNG", "x.jpg"]  # of a/deep, a folder
    assert [name for _, name in find_images([str(folders / "[ab]/x.j?g")], notes)] == ["a/x.jpg", "b/x.jpg"]
    with pytest.raises(DataError, match=r"nothing\*\.jpg: no file matches this pattern"):
        find_images([str(folders / "nothing*.jpg")], notes)
    (folders / "a[1].jpg").touch()
    assert [name for _, name in find_images([str(folders / "a[1].jpg")], notes)] == ["a[1].jpg"], "a file, no pattern"


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_a_list_on_standard_input(separator: bytes, folders: Path) -> None:
    paths = [folders / "b/x.jpg", folders / "gone.jpg", folders / "a"]
    content = separator.join([*(os.fsencode(path) for path in paths), b""])
    found = find_images(["-"], RepairLog(), stdin=io.BytesIO(content))
    assert [path.name for path, _ in found] == ["x.jpg", "gone.jpg", "y.PNG", "x.jpg"]
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):  # control: an argument must exist
        find_images([str(folders / "gone.jpg")], RepairLog())
    with pytest.raises(DataError, match="no paths on standard input"):
        find_images(["-"], RepairLog(), stdin=io.BytesIO(separator * 2))
    with pytest.raises(DataError, match="- is given twice"):
        find_images(["-", "-"], RepairLog(), stdin=io.BytesIO(content))


def test_names_in_a_list_need_not_be_utf8(folders: Path) -> None:
    found = find_images(["-"], RepairLog(), stdin=io.BytesIO(os.fsencode(folders) + b"/caf\xe9.jpg\n"))
    assert [name for _, name in found] == ["caf\\xe9.jpg"]
