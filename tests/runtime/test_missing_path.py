"""The error for a path that does not exist names what is there instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.runtime.missing_path import missing_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Cells/train", "bottles", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "cells.txt").write_text("", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("botles", "{0} has no botles; did you mean {0}/bottles?"),
        ("cels/train", "{0} has no cels; did you mean {0}/Cells/train?"),
        ("cells/val", "did you mean {0}/Cells?"),
        ("Cells/trian", "{0}/Cells has no trian; did you mean {0}/Cells/train?"),
        ("xyz", "{0} has no xyz; it contains Cells, bottles, cells.txt, empty; check the path"),
        ("empty/a/b", "{0}/empty is empty; check the path"),
        ("cells.txt/train", "{0}/cells.txt is a file, not a folder; check the path"),
    ],
)
def test_nearest_name(name: str, expected: str, folder: Path) -> None:
    if (folder / "cells").exists():
        pytest.skip("this file system does not distinguish upper and lower case")
    text = str(missing_path(folder / name))
    assert text.startswith(f"{folder / name}: no such file or folder; ")
    assert text.replace("\\", "/").endswith(expected.format(folder.as_posix()))


def test_relative_to_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert str(missing_path("botles", "image folder")) == (
        f"botles: no such image folder; the current folder {Path.cwd()} has no botles; did you mean bottles?"
    )


def test_a_link_to_nothing(folder: Path) -> None:
    (folder / "data").symlink_to("gone")
    assert "is a link to gone, which does not exist" in str(missing_path(folder / "data"))


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    assert str(missing_path("~/data")).endswith("pass /home/me/data")
    assert "home folder" not in str(missing_path("~nobody-of-this-name/data"))


@pytest.mark.parametrize("address", ["https://example.org/a.zip", "s3://bucket/a", "HTTP://example.org/a"])
@pytest.mark.parametrize("kind", [str, Path])
def test_url(address: str, kind: type) -> None:
    text = str(missing_path(kind(address)))
    assert text.startswith(f"{address}: no such file or folder, because it is a URL; download it, ")


def test_file_url_and_drive() -> None:
    assert str(missing_path("file:///home/me/a")).endswith("pass the path, /home/me/a")
    assert "URL" not in str(missing_path("C:/data")), "control: a drive"
