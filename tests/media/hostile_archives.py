"""Planted faults in archives: how each is made, and what must be said about it."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

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
