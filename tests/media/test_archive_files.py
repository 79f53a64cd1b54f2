"""Files in archives: read in place, at any position, by threads and by processes of any start method."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detseg.media import archive
from detseg.media.archive import OpenedArchives
from detseg.media.files import (
    container_of,
    copy_file,
    exists,
    file_size,
    is_dir,
    is_file,
    listdir,
    open_file,
    read_bytes,
)
from tests.media.archives import KINDS, pack

RANDOM = random.Random(0)
FILES = {f"top/images/{number:02}.bin": RANDOM.randbytes(3000 * number) + bytes(100 * number) for number in range(12)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files") / "folder"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    for kind in KINDS:
        pack(root, root.parent / f"a{kind}")
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_files_and_folders(kind: str, folder: Path) -> None:
    path = folder.parent / f"a{kind}"
    assert is_dir(path)
    assert not is_file(path)
    assert is_dir(path / "top/images")
    assert listdir(path) == ["top"]
    assert sorted(listdir(path / "top/images")) == sorted(path.name for path in (folder / "top/images").iterdir())
    assert not exists(path / "top/nothing")
    assert not exists(path / "top/images/00.bin/x")
    assert all(read_bytes(path / name) == content for name, content in FILES.items())
    assert all(file_size(path / name) == len(content) for name, content in FILES.items())
    for missing, error in (("top/x", FileNotFoundError), ("top", IsADirectoryError), ("", IsADirectoryError)):
        with pytest.raises(error):
            open_file(path / missing)
    with pytest.raises(NotADirectoryError):
        listdir(path / "top/images/01.bin")
    with pytest.raises(FileNotFoundError):
        listdir(path / "top/nothing")


@pytest.mark.parametrize("kind", KINDS)
def test_reading_at_any_position(kind: str, folder: Path) -> None:
    order = random.Random(1)
    name = "top/images/11.bin"
    with open_file(folder.parent / f"a{kind}" / name) as file:
        expected = io.BytesIO(FILES[name])
        for _ in range(50):
            position, count = order.randrange(len(FILES[name]) + 100), order.randrange(2000)
            assert file.seek(position) == expected.seek(position)
            assert file.read(count) == expected.read(count)
        assert file.seek(-10, os.SEEK_END) == expected.seek(-10, os.SEEK_END)
        assert file.read() == expected.read()
    assert file.closed


def contents(path: Path) -> list[bool]:
    return [read_bytes(path / name) == content for name, content in FILES.items()]


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tgz"])
def test_threads(kind: str, folder: Path) -> None:
    archive._opened.clear()
    with ThreadPoolExecutor(8) as pool:
        names = list(FILES) * 20
        assert list(pool.map(lambda name: read_bytes(folder.parent / f"a{kind}" / name), names)) == [
            FILES[name] for name in names
        ]


def answer(opened: OpenedArchives, path: Path, connection: object) -> None:
    """In another process: whether it reads the same, and whether it had the archive without indexing it."""
    known = str(path) in archive._opened
    connection.send((known, contents(path)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", [".zip", ".tgz"])
def test_processes(method: str, kind: str, folder: Path) -> None:
    path = folder.parent / f"a{kind}"
    assert all(contents(path))
    context = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(OpenedArchives(), path, sending))  # type: ignore[attr-defined]
    process.start()
    known, same = receiving.recv()
    process.join()
    assert known
    assert all(same)
    assert all(contents(path)), "the content is still open here"


def test_other_pickles_contain_no_archive(folder: Path) -> None:
    assert all(contents(folder.parent / "a.tgz"))
    assert len(pickle.dumps(OpenedArchives())) < 200


def test_a_changed_archive_is_indexed_again(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as writer:
        writer.writestr("a.txt", "one")
    assert read_bytes(tmp_path / "a.zip/a.txt") == b"one"
    time.sleep(0.01)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as writer:
        writer.writestr("b.txt", "two")
    assert listdir(tmp_path / "a.zip") == ["b.txt"]


def test_zips_of_other_programs(tmp_path: Path) -> None:
    """Sizes of 64 bits, sizes after the data (written to a pipe), and a program before the archive."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe, large = Pipe(), io.BytesIO()
    for file, options in ((pipe, {}), (large, {"force_zip64": True})):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writer, writer.open("a.txt", "w", **options) as stream:  # type: ignore[call-overload]
            stream.write(b"content")
    for number, content in enumerate((pipe.getvalue(), large.getvalue(), b"#!/bin/sh\n" + large.getvalue())):
        (tmp_path / f"{number}.zip").write_bytes(content)
        assert read_bytes(tmp_path / f"{number}.zip/a.txt") == b"content"


def test_what_is_a_container(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip/a.zip").write_bytes(b"")
    assert container_of(tmp_path / "folder.zip/x") is None, "a folder with the suffix of an archive is a folder"
    assert container_of(tmp_path / "folder.zip/a.zip/b/c.zip/d") == (f"{tmp_path}/folder.zip/a.zip", "b/c.zip/d")
    assert container_of(tmp_path / "missing.zip/x") is None
    assert is_file(tmp_path / "folder.zip") is False


def test_a_file_is_copied_out(folder: Path, tmp_path: Path) -> None:
    copy_file(folder.parent / "a.tar/top/images/03.bin", tmp_path / "new/3.bin")
    assert (tmp_path / "new/3.bin").read_bytes() == FILES["top/images/03.bin"]
