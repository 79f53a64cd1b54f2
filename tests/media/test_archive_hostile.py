"""Hostile and damaged archives: each is refused in one line with file, value and remedy, and nothing is written.

Each case has a control: a naive reader (``zipfile`` or ``tarfile``) takes it, unless ``NOTICED`` lists it.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from detseg.annotations.listing import list_folder
from detseg.errors import DataError
from detseg.media import archive, archive_index, archive_unpack, archive_zip
from detseg.media.files import is_dir, is_file, listdir, open_file, read_bytes
from tests.media.hostile_archives import CASES, CONTENT, NOTICED, TWO, ZEROS, entry, link, many, special, tarred, zipped


def is_taken(path: Path) -> bool:
    """Whether the naive reader, which lists and reads all files, takes an archive as if nothing was wrong."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        with tarfile.open(path) as tar:
            for info in tar.getmembers():
                if info.isreg() and info.size < 2**30:
                    tar.extractfile(info).read()  # type: ignore[union-attr]
    except (zipfile.BadZipFile, tarfile.TarError, RuntimeError, OSError, EOFError):
        return False
    return True


def refusal(path: Path, inside: str) -> str:
    """The message for a file of an archive: one line with the name of the archive; nothing is written."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        read_bytes(path / inside)
    assert sorted(path.parent.rglob("*")) == before
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert "; " in text
    assert len(text.removeprefix(str(path))) < 300
    return text


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_archive(case: str, tmp_path: Path) -> None:
    name, inside, make, message = CASES[case]
    (tmp_path / name).write_bytes(make())
    assert re.search(message, refusal(tmp_path / name, inside))
    assert is_taken(tmp_path / name) == (case not in NOTICED), "control"


def test_control_most_cases_fool_a_naive_reader() -> None:
    assert len(CASES) - len(NOTICED) >= 25
    assert CASES.keys() >= NOTICED


def test_control_an_archive_with_nothing_wrong(tmp_path: Path) -> None:
    for name, content in (("a.zip", zipped(*TWO)), ("a.tar", tarred(*TWO)), ("a.tar.gz", gzip.compress(tarred(*TWO)))):
        (tmp_path / name).write_bytes(content)
        assert read_bytes(tmp_path / name / "a.jpg") == CONTENT


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a.jpg", ZEROS)))
    tracemalloc.start()
    try:
        refusal(tmp_path / "a.zip", "a.jpg")
        peak = tracemalloc.get_traced_memory()[1]
        with zipfile.ZipFile(tmp_path / "a.zip") as archive:
            archive.read("a.jpg")
        assert peak < 2**20 < 2**27 < tracemalloc.get_traced_memory()[1], "control"
    finally:
        tracemalloc.stop()


def test_a_header_is_read_without_inflating_the_file(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(2**22)
    (tmp_path / "a.zip").write_bytes(zipped(("a.jpg", content)))
    tracemalloc.start()
    try:
        with open_file(tmp_path / "a.zip/a.jpg") as file:
            assert file.seek(0, os.SEEK_END) == len(content)
            file.seek(0)
            assert file.read(100) == content[:100]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_bomb_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "MAX_UNPACKED", 10**6)
    (tmp_path / "a.zip").write_bytes(zipped(*((f"{number}.jpg", bytes(50_000)) for number in range(40))))
    assert "its files have more than 1 MiB" in refusal(tmp_path / "a.zip", "0.jpg")
    (tmp_path / "b.zip").write_bytes(zipped(*((f"{number}.jpg", os.urandom(50_000)) for number in range(40))))
    assert read_bytes(tmp_path / "b.zip/0.jpg"), "control: as much, but not compressed"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar"])  # by content, whatever the suffix is
def test_a_compressed_bomb(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(tarred(("a.jpg", bytes(10**7)))))
    assert len(read_bytes(tmp_path / f"a{suffix}" / "a.jpg")) == 10**7, "control"
    archive._opened.clear()
    monkeypatch.setattr(archive_unpack, "MAX_UNPACKED", 10**6)
    assert "a decompression bomb; decompress it yourself" in refusal(tmp_path / f"a{suffix}", "a.jpg")


def test_no_space_to_decompress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tarred(*TWO)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    assert "set TMPDIR to a folder on a larger disk, or decompress it" in refusal(tmp_path / "a.tgz", "a.jpg")
    monkeypatch.undo()
    assert read_bytes(tmp_path / "a.tgz/a.jpg") == CONTENT, "the error is not kept"


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(many(2000))
    assert len(listdir(tmp_path / "a.zip")) == 2000, "control"
    monkeypatch.setattr(archive_index, "MAX_FILES", 1000)
    (tmp_path / "b.zip").write_bytes(many(2000))
    assert "it has more than 1000 files and folders; split it" in refusal(tmp_path / "b.zip", "a.jpg")
    monkeypatch.setattr(archive_zip, "MAX_DIRECTORY", 1000)
    (tmp_path / "c.zip").write_bytes(many(2000))
    assert "at most 0 MiB are read; split it" in refusal(tmp_path / "c.zip", "a.jpg")


def test_an_archive_in_an_archive_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("b.zip", zipped(*TWO))))
    assert is_file(tmp_path / "a.zip/b.zip")
    assert not is_dir(tmp_path / "a.zip/b.zip")
    assert not is_file(tmp_path / "a.zip/b.zip/a.jpg")
    assert list_folder(tmp_path / "a.zip").files == ["b.zip"]


def test_names_that_differ_only_in_case(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("a.jpg", b"one"), ("A.jpg", b"two")))
    assert [read_bytes(tmp_path / "a.zip" / name) for name in ("a.jpg", "A.jpg")] == [b"one", b"two"]


@pytest.mark.parametrize(("encoding", "name"), [("cp437", "Gr\u00fcn.jpg"), ("cp932", "\u5199\u771f.jpg")])
def test_names_that_are_not_utf8(encoding: str, name: str, tmp_path: Path) -> None:
    data = zipped(("N" * len(name.encode(encoding)), CONTENT)).replace(
        b"N" * len(name.encode(encoding)), name.encode(encoding)
    )
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DataError, match=r"is not UTF-8 text.*unzip -O cp932"):
        list_folder(tmp_path / "a.zip")
    [file] = list_folder(tmp_path / "a.zip", any_names=True).files
    assert read_bytes(tmp_path / "a.zip" / file) == CONTENT
    info = entry("x.jpg")
    raw = b"x.jpg"
    info.extra = struct.pack("<HHBL", 0x7075, 5 + len(name.encode()), 1, zlib.crc32(raw)) + name.encode()
    (tmp_path / "b.zip").write_bytes(zipped((info, CONTENT)))
    assert listdir(tmp_path / "b.zip") == ["x.jpg"], "ASCII names need no second one"


def test_links_inside_are_resolved(tmp_path: Path) -> None:
    tar = tarred(
        ("images/a.jpg", CONTENT),
        special("links/b.jpg", tarfile.SYMTYPE, "../images/a.jpg"),
        special("links/c.jpg", tarfile.SYMTYPE, "b.jpg"),
        special("d.jpg", tarfile.LNKTYPE, "images/a.jpg"),
    )
    (tmp_path / "a.tar").write_bytes(tar)
    (tmp_path / "a.zip").write_bytes(zipped(("images/a.jpg", CONTENT), link("links/b.jpg", "../images/a.jpg")))
    for name in ("a.tar/links/b.jpg", "a.tar/links/c.jpg", "a.tar/d.jpg", "a.zip/links/b.jpg"):
        assert read_bytes(tmp_path / name) == CONTENT


def test_backslashes_are_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped(("images\\a.jpg", CONTENT)))
    assert list_folder(tmp_path / "a.zip").files == ["images/a.jpg"]
    assert read_bytes(tmp_path / "a.zip/images/a.jpg") == CONTENT
