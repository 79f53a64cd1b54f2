"""Hostile and damaged archives: each is refused in one line with file, value and remedy, and nothing is written.

Each case has a control: a naive reader (``zipfile`` or ``tarfile``) takes it, unless ``NOTICED`` lists it.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from detseg.annotations.listing import list_folder
from detseg.errors import DataError
from detseg.media import archive, archive_index, archive_unpack, archive_zip
from detseg.media.files import is_dir, is_file, listdir, open_file, read_bytes

CONTENT = b"image " * 100


def zipped(*entries: tuple[str, bytes] | tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content, None if isinstance(name, str) else name.compress_type)
    return file.getvalue()


def tarred(*entries: tuple[str, bytes] | tarfile.TarInfo, **options: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:  # type: ignore[call-overload]
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return file.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def entry(name: str, **fields: object) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def central(data: bytes, offset: int, value: bytes, number: int = 0) -> bytes:
    """A zip with bytes of an entry of its directory replaced."""
    position = -1
    for _ in range(number + 1):
        position = data.index(b"PK\x01\x02", position + 1)
    return replaced(data, position + offset, value)


def local(data: bytes, offset: int, value: bytes) -> bytes:
    """A zip with bytes of its first local header replaced."""
    return replaced(data, offset, value)


def replaced(data: bytes, position: int, value: bytes) -> bytes:
    return data[:position] + value + data[position + len(value) :]


def quoted_twice() -> bytes:
    """Two entries of the directory for the same bytes, as in overlapping bombs."""
    data = zipped(("a.jpg", CONTENT), ("b.jpg", CONTENT))
    return central(data, 42, bytes(4), number=1)


def zip64_size(size: int) -> bytes:
    """A zip that states a size of 64 bits for its only file."""
    data = zipped(("a.jpg", CONTENT))
    position = data.index(b"PK\x01\x02")
    extra = struct.pack("<HHQ", 1, 8, size)
    head = bytearray(data[position : position + 46])
    head[24:28], head[30:32] = b"\xff\xff\xff\xff", struct.pack("<H", len(extra))
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    directory = bytes(head) + b"a.jpg" + extra
    end[12:16] = struct.pack("<L", len(directory))
    return data[:position] + directory + bytes(end)


def many(number: int) -> bytes:
    return zipped(*((f"{value}.jpg", b"") for value in range(number)))


def resized(name: str, size: str) -> bytes:
    """A tar whose pax header states another size."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {"size": size}
    info.size = 0
    return tarred(info, format=tarfile.PAX_FORMAT)


def huge_header() -> bytes:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = b"L", 2**31
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)


def sparse() -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.jpg",
                        "GNU.sparse.realsize": str(2**40)}  # fmt: skip
    content = b"1\n0\n0\n".ljust(512, b"\0")
    info.size = len(content)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


ZEROS = bytes(2**27)
TWO = (("a.jpg", CONTENT), ("b.jpg", CONTENT))

CASES: dict[str, tuple[str, str, Callable[[], bytes], str]] = {
    # case: (name of the archive, file that is opened, content, message)
    "zip: one file that unpacks to a thousand times its size": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("a.jpg", ZEROS)),
        r"a\.jpg: \d+ bytes that become 134217728 .* bomb; remove",
    ),
    "zip: states a huge size in 64 bits": (
        "a.zip",
        "a.jpg",
        lambda: zip64_size(2**60),
        "decompression bomb; unpack it",
    ),
    "zip: files overlap": (
        "a.zip",
        "a.jpg",
        quoted_twice,
        r"the bytes of .* overlap those of .*: a decompression bomb",
    ),
    "zip: climbing name": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("../a.jpg", CONTENT)),
        r"the name '\.\./a\.jpg' in it leads",
    ),
    "zip: climbing name inside": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("images/../../a.jpg", CONTENT)),
        r"'images/\.\./\.\./a\.jpg' in it leads out",
    ),
    "zip: climbing name with backslashes": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("..\\..\\a.jpg", CONTENT)),
        r"the name '\.\./\.\./a\.jpg' in it leads out",
    ),
    "zip: absolute name": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("/etc/a.jpg", CONTENT)),
        "the name '/etc/a.jpg' in it leads",
    ),
    "zip: name with a drive": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("C:\\a.jpg", CONTENT)),
        "the name 'C:/a.jpg' in it leads",
    ),
    "zip: name with a zero byte": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("a.jpgX.exe", CONTENT)).replace(b"a.jpgX", b"a.jpg\0"),
        r"the name 'a\.jpg\\x00\.exe' in it leads out",
    ),
    "zip: the same name twice": (
        "a.zip",
        "a.jpg",
        lambda: zipped(TWO[0], ("x.jpg", b"other")).replace(b"x.jpg", b"a.jpg"),
        "the name 'a.jpg' occurs twice",
    ),
    "zip: the same name twice in two spellings": (
        "a.zip",
        "a.jpg",
        lambda: zipped(TWO[0], ("./a.jpg", b"other")),
        r"the name '\./a\.jpg' occurs twice",
    ),
    "zip: a file that is also a folder": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("a.jpg", CONTENT), ("a.jpg/b.jpg", CONTENT)),
        "is below 'a.jpg', which is a file",
    ),
    "zip: link out of the archive": (
        "a.zip",
        "a.jpg",
        lambda: zipped(link("a.jpg", "../../etc/passwd")),
        r"a link to \.\./\.\./etc/passwd, which is not",
    ),
    "zip: link to an absolute path": (
        "a.zip",
        "a.jpg",
        lambda: zipped(link("a.jpg", "/etc/passwd")),
        "a link to /etc/passwd, which is not a file in",
    ),
    "zip: encrypted": (
        "a.zip",
        "a.jpg",
        lambda: local(central(zipped(TWO[0]), 8, b"\x01\0"), 6, b"\x01\0"),
        "encrypted with a password",
    ),
    "zip: compressed by bzip2": (
        "a.zip",
        "a.jpg",
        lambda: zipped(TWO[0], method=zipfile.ZIP_BZIP2),
        r"compression method 12 \(bzip2\)",
    ),
    "zip: the local header states another size": (
        "a.zip",
        "a.jpg",
        lambda: local(zipped(TWO[0]), 22, b"\x07\0\0\0"),
        "its local header says size 7, the directory 600",
    ),
    "zip: the local header states another name": (
        "a.zip",
        "a.jpg",
        lambda: local(zipped(TWO[0]), 30, b"b.jpg"),
        r"says name 'b\.jpg', the directory 'a\.jpg'",
    ),
    "zip: more bytes than stated": (
        "a.zip",
        "a.jpg",
        lambda: local(central(zipped(TWO[0]), 24, b"\x07\0\0\0"), 22, b"\x07\0\0\0"),
        "more than the 7 bytes that the",
    ),
    "zip: fewer bytes than stated": (
        "a.zip",
        "a.jpg",
        lambda: local(central(zipped(TWO[0]), 24, b"\xff\x7f\0\0"), 22, b"\xff\x7f\0\0"),
        "600 bytes, not the 32767 that",
    ),
    "zip: stored in fewer bytes than stated": (
        "a.zip",
        "a.jpg",
        lambda: central(zipped(TWO[0], method=0), 24, b"\x00\x01\0\0"),
        "stored in 600 bytes, but of 256",
    ),
    "zip: a changed byte": (
        "a.zip",
        "a.jpg",
        lambda: zipped(TWO[0], method=0).replace(b"image", b"Image", 1),
        "does not have the checksum",
    ),
    "zip: truncated": ("a.zip", "a.jpg", lambda: zipped(*TWO)[:-30], "a truncated zip: its end"),
    "zip: its beginning is missing": ("a.zip", "a.jpg", lambda: zipped(*TWO)[200:], "damaged or truncated zip"),
    "zip: one part of several": (
        "a.zip",
        "a.jpg",
        lambda: central(zipped(*TWO), 34, b"\x01\0"),
        "one part of a split zip",
    ),
    "zip: a device": (
        "a.zip",
        "a.jpg",
        lambda: zipped((entry("a.jpg", create_system=3, external_attr=(stat.S_IFCHR | 0o666) << 16), CONTENT)),
        "a device, socket or pipe, not a file",
    ),
    "zip: not a zip": (
        "a.zip",
        "a.jpg",
        lambda: b"<html>not found</html>",
        "not a zip, but another file with this suffix",
    ),
    "zip: folders nested without end": (
        "a.zip",
        "a.jpg",
        lambda: zipped(("d/" * 20000 + "a.jpg", CONTENT)),
        "its folders are nested deeper than 100",
    ),
    "tar: climbing name": (
        "a.tar",
        "a.jpg",
        lambda: tarred(("../a.jpg", CONTENT)),
        r"the name '\.\./a\.jpg' in it leads out",
    ),
    "tar: absolute name": (
        "a.tar",
        "a.jpg",
        lambda: tarred(("/etc/a.jpg", CONTENT)),
        "the name '/etc/a.jpg' in it leads out",
    ),
    "tar: the same name twice": (
        "a.tar",
        "a.jpg",
        lambda: tarred(TWO[0], ("a.jpg", b"other")),
        "the name 'a.jpg' occurs twice",
    ),
    "tar: symbolic link out of it": (
        "a.tar",
        "a.jpg",
        lambda: tarred(special("a.jpg", tarfile.SYMTYPE, "../../../etc/passwd")),
        "a link to ../../../etc",
    ),
    "tar: hard link out of it": (
        "a.tar",
        "a.jpg",
        lambda: tarred(special("a.jpg", tarfile.LNKTYPE, "/etc/passwd")),
        "a link to /etc/passwd, which",
    ),
    "tar: links in a circle": (
        "a.tar",
        "a.jpg",
        lambda: tarred(special("a.jpg", tarfile.SYMTYPE, "b.jpg"), special("b.jpg", tarfile.SYMTYPE, "a.jpg")),
        r"a link to b\.jpg, which is not a file",
    ),
    "tar: a pipe": (
        "a.tar",
        "a.jpg",
        lambda: tarred(special("a.jpg", tarfile.FIFOTYPE)),
        "a device or pipe, not a file",
    ),
    "tar: sparse": ("a.tar", "a.jpg", sparse, "stored as a sparse file"),
    "tar: truncated in a file": ("a.tar", "b.jpg", lambda: tarred(*TWO)[:2700], "truncated|damaged"),
    "tar: truncated between two files": (
        "a.tar",
        "a.jpg",
        lambda: tarred(*TWO)[:1536],
        "a truncated tar: the blocks that mark",
    ),
    "tar: a damaged header ends it": (
        "a.tar",
        "a.jpg",
        lambda: replaced(tarred(*TWO), 1536 + 20, b"xxx"),
        "a damaged tar: no header at byte 1536",
    ),
    "tar: two archives joined": (
        "a.tar",
        "a.jpg",
        lambda: tarred(TWO[0])[:2560] + tarred(TWO[1]),
        "several archives joined",
    ),
    "tar: a size past its end": (
        "a.tar",
        "a.jpg",
        lambda: resized("a.jpg", str(2**50)),
        "truncated or damaged|damaged tar",
    ),
    "tar: a negative size": ("a.tar", "a.jpg", lambda: resized("a.jpg", "-512"), "damaged"),
    "tar: a header of gigabytes": ("a.tar", "a.jpg", huge_header, "a header of 2147483648 bytes"),
    "tar: not a tar": ("a.tar", "a.jpg", lambda: b"<html>not found</html>" * 100, "not a tar, or a damaged one"),
    "tar.gz: truncated": (
        "a.tar.gz",
        "a.jpg",
        lambda: gzip.compress(tarred(*TWO))[:-40],
        "truncated or corrupt compressed",
    ),
    "tar.gz: corrupt": (
        "a.tgz",
        "a.jpg",
        lambda: gzip.compress(tarred(*TWO))[:-8] + b"12345678",
        "truncated or corrupt compressed data",
    ),
}
"""Case -> name of the archive, file that is opened, content of the archive, message."""

NOTICED = {
    "zip: files overlap", "zip: encrypted", "zip: the local header states another name", "zip: more bytes than stated",
    "zip: stored in fewer bytes than stated", "zip: a changed byte", "zip: truncated", "zip: its beginning is missing",
    "zip: not a zip", "tar: truncated in a file", "tar: a size past its end", "tar: a header of gigabytes",
    "tar: not a tar", "tar.gz: truncated",
}  # fmt: skip
"""Cases that the naive reader refuses, too; it takes all others."""


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
