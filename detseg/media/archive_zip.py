"""Index a zip from its central directory, and find the bytes of a file in it.

Format: PKWARE APPNOTE 6.3.10, with zip64. An own reader because ``zipfile`` makes an object of each entry before a
limit can be checked, and accepts what two programs read differently (names that occur twice, local headers that say
something else).
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import BinaryIO

from detseg.errors import DataError
from detseg.media.archive_file import DeflatedFile, StoredFile, read_at
from detseg.media.archive_index import ArchiveIndex, Member
from detseg.short_text import printable_name

MAX_DIRECTORY = 2**30
"""Bytes of a central directory: ten million names."""

AGAIN = "zip -r NEW.zip FOLDER"

_DOWNLOAD = "download or copy it again"
_END, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_END_HEAD = struct.Struct("<4s4H2LH")
_END64, _END64_HEAD = b"PK\x06\x06", struct.Struct("<4sQ2H2L4Q")
_LOCATOR64, _LOCATOR64_HEAD = b"PK\x06\x07", struct.Struct("<4sLQL")
_ENTRY_HEAD = struct.Struct("<4s2BHHHHHLLLHHHHHLL")
_LOCAL_HEAD = struct.Struct("<4sHHHHHLLLHH")
_MAX_COMMENT = 2**16
_ENCRYPTED, _SIZES_FOLLOW, _STRONG, _UTF8 = 0x1, 0x8, 0x40, 0x800
_STORED, _DEFLATED, _AES = 0, 8, 99
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_UNIX = (3, 19)  # systems whose external attributes have the mode of a file: Unix, macOS
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_UNKNOWN_32 = 0xFFFFFFFF
_MAX_TARGET = 4096


def index_zip(path: str, file: BinaryIO) -> ArchiveIndex:
    """Index a zip.

    Raises:
        DataError: not a zip, truncated, split, with files that overlap; or see :class:`ArchiveIndex`.
    """
    length = file.seek(0, os.SEEK_END)
    index = ArchiveIndex(path, length, AGAIN)
    start, size, shift = _directory(index, file, length)
    file.seek(start)
    directory = file.read(size)
    extents: list[tuple[int, int, str]] = []
    links: list[tuple[str, Member]] = []
    position = 0
    while position < size:
        if not directory.startswith(_ENTRY, position) or size - position < _ENTRY_HEAD.size:
            raise index.error(f"damaged entry in its directory, at byte {start + position}", _DOWNLOAD)
        (_, _, system, _, flags, method, _, _, checksum, packed, unpacked, of_name, of_extra, of_comment, disk, _, mode,
         offset) = _ENTRY_HEAD.unpack_from(directory, position)  # fmt: skip
        begin = position + _ENTRY_HEAD.size
        raw, extra = directory[begin : begin + of_name], directory[begin + of_name : begin + of_name + of_extra]
        position = begin + of_name + of_extra + of_comment
        unpacked, packed, offset = _wide(extra, unpacked, packed, offset)
        name = _decoded(raw, flags, extra)
        if disk not in (0, 0xFFFF):
            raise index.error("one part of a split zip", "join its parts (zip -s 0 PART.zip --out WHOLE.zip)")
        if name.endswith("/") and unpacked == 0:
            index.add_folder(name)
            continue
        offset += shift
        member = Member(offset, packed, unpacked, checksum, method == _DEFLATED)
        extents.append((offset, offset + _LOCAL_HEAD.size + of_name + packed, name))
        kind = stat.S_IFMT(mode >> 16) if system in _UNIX else 0
        if kind == stat.S_IFLNK and not _problem(flags, method, 0, member):
            links.append((name, member))
        else:
            index.add_file(name, member, _problem(flags, method, kind, member))
    _check_extents(index, extents, start)
    for name, member in links:
        index.add_link(name, _link_target(index, file.fileno(), member, name), from_top=False)
    index.finish()
    return index


def open_zipped(
    index: ArchiveIndex, descriptor: int, member: Member, name: str, close: Callable[[], None]
) -> StoredFile:
    """Open a file of a zip, whose local header must say what the directory says.

    Args:
        index: of the zip.
        descriptor: of the opened zip.
        member, name: the file.
        close: called when the file is closed.

    Raises:
        DataError: the two differ.
    """
    shown = f"{index.path}/{name}"
    head = read_at(descriptor, _LOCAL_HEAD.size, member.start)
    if len(head) < _LOCAL_HEAD.size or not head.startswith(_LOCAL):
        raise DataError(f"{shown}: no local header at byte {member.start}; the archive is damaged: {_DOWNLOAD}")
    _, _, flags, method, _, _, checksum, packed, unpacked, of_name, of_extra = _LOCAL_HEAD.unpack(head)
    rest = read_at(descriptor, of_name + of_extra, member.start + _LOCAL_HEAD.size)
    raw, extra = rest[:of_name], rest[of_name:]
    unpacked, packed, _ = _wide(extra, unpacked, packed, 0)
    stated: dict[str, tuple[str | int, str | int]] = {
        "name": ("/".join(part for part in _decoded(raw, flags, extra).split("/") if part not in ("", ".")), name),
        "compression method": (method, _DEFLATED if member.deflated else _STORED),
    }
    if not flags & _SIZES_FOLLOW:
        stated |= {
            "packed size": (packed, member.packed),
            "size": (unpacked, member.size),
            "checksum": (checksum, member.checksum),
        }
    for what, (local, central) in stated.items():
        if local != central:
            raise DataError(
                f"{shown}: its local header says {what} {_shown(local)}, the directory {_shown(central)}; make the "
                f"archive again ({AGAIN})"
            )
    start = member.start + _LOCAL_HEAD.size + of_name + of_extra
    if start + member.packed > index.ends[bisect_right(index.ends, member.start)]:
        raise DataError(f"{shown}: its bytes overlap those of the next file; make the archive again ({AGAIN})")
    if member.deflated:
        return DeflatedFile(descriptor, start, member.packed, member.size, shown, member.checksum, close)
    return StoredFile(descriptor, start, member.size, shown, member.checksum, close)


def _directory(index: ArchiveIndex, file: BinaryIO, length: int) -> tuple[int, int, int]:
    """Start and size of the central directory, and what must be added to offsets in it: a program may precede a zip."""
    tail_start = max(length - _END_HEAD.size - _MAX_COMMENT, 0)
    file.seek(tail_start)
    tail = file.read()
    position = tail.rfind(_END)
    while position >= 0:
        if len(tail) - position >= _END_HEAD.size:
            _, disk, _, _, _, size, offset, of_comment = _END_HEAD.unpack_from(tail, position)
            if position + _END_HEAD.size + of_comment == len(tail):
                break
        position = tail.rfind(_END, 0, position)
    if position < 0:
        file.seek(0)
        if file.read(4) in (_LOCAL, _END):
            raise index.error("a truncated zip: its end, with the directory of its files, is missing", _DOWNLOAD)
        raise index.error("not a zip, but another file with this suffix", f"{_DOWNLOAD}, or correct its suffix")
    end = tail_start + position
    if disk not in (0, 0xFFFF):
        raise index.error("one part of a split zip", "join its parts (zip -s 0 PART.zip --out WHOLE.zip)")
    file.seek(max(end - _LOCATOR64_HEAD.size, 0))
    locator = file.read(_LOCATOR64_HEAD.size)
    if locator.startswith(_LOCATOR64):
        file.seek(max(end - _LOCATOR64_HEAD.size - _END64_HEAD.size, 0))
        head = file.read(_END64_HEAD.size)
        if not head.startswith(_END64) or len(head) < _END64_HEAD.size:
            raise index.error("damaged end of its directory (zip64)", _DOWNLOAD)
        *_, size, offset = _END64_HEAD.unpack(head)
        end -= _LOCATOR64_HEAD.size + _END64_HEAD.size
    start = end - size
    if start < 0 or offset > start:
        raise index.error(
            f"a damaged or truncated zip: its directory of {size} bytes at {offset} is not before its end at {end}",
            _DOWNLOAD,
        )
    if size > MAX_DIRECTORY:
        raise index.error(
            f"its directory of files has {size >> 20} MiB; at most {MAX_DIRECTORY >> 20} MiB are read",
            "split it into several archives",
        )
    return start, size, start - offset


def _wide(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The sizes and the offset with 64 bits, where 32 are not enough."""
    if _UNKNOWN_32 not in (unpacked, packed, offset):
        return unpacked, packed, offset
    fields, values = _extra_field(extra, _ZIP64), []
    for value in (unpacked, packed, offset):
        if value == _UNKNOWN_32 and len(fields) >= 8:
            value, fields = int.from_bytes(fields[:8], "little"), fields[8:]
        values.append(min(value, 2**62))
    return values[0], values[1], values[2]


def _extra_field(extra: bytes, needed: int) -> bytes:
    """The content of a field of the extra data of an entry; empty if there is none."""
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        if kind == needed:
            return extra[position + 4 : position + 4 + size]
        position += 4 + size
    return b""


def _decoded(raw: bytes, flags: int, extra: bytes) -> str:
    """The name of an entry with forward slashes. Without a flag its encoding is not stated: bytes that are not UTF-8
    become what the name of such a file is in Python."""
    if not flags & _UTF8 and not raw.isascii():
        path = _extra_field(extra, _UNICODE_PATH)
        if len(path) > 5 and int.from_bytes(path[1:5], "little") == zlib.crc32(raw):
            raw = path[5:]
    return raw.decode("utf-8", "surrogateescape").replace("\\", "/")


def _problem(flags: int, method: int, kind: int, member: Member) -> str:
    """Why a file cannot be read, and the remedy; "" if it can."""
    if flags & (_ENCRYPTED | _STRONG) or method == _AES:
        return "encrypted with a password; unpack the archive (7z x) and pass the folder"
    if method not in (_STORED, _DEFLATED):
        name = f" ({_METHODS[method]})" if method in _METHODS else ""
        return f"compression method {method}{name} is not supported; make the archive again ({AGAIN})"
    if method == _STORED and member.packed != member.size:
        return (
            f"stored in {member.packed} bytes, but of {member.size} bytes as stated; make the archive again ({AGAIN})"
        )
    if kind not in (0, stat.S_IFREG):
        return "a device, socket or pipe, not a file; remove it from the archive"
    return ""


def _check_extents(index: ArchiveIndex, extents: list[tuple[int, int, str]], directory: int) -> None:
    """DataError if files overlap, or reach into the directory: bombs use the same bytes for many files."""
    extents.sort()
    for number, (_, stop, name) in enumerate(extents):
        following = extents[number + 1][0] if number + 1 < len(extents) else directory
        if stop > following:
            other = extents[number + 1][2] if number + 1 < len(extents) else "its directory"
            raise index.error(
                f"the bytes of {printable_name(name)} overlap those of {printable_name(other)}: a decompression bomb, "
                "or damaged",
                f"unpack it, if you trust it, and make it again ({AGAIN})",
            )
    index.ends = array("q", [*(start for start, _, _ in extents), directory])


def _link_target(index: ArchiveIndex, descriptor: int, member: Member, name: str) -> str:
    """The path that a link leads to, which is its content."""
    if member.size > _MAX_TARGET:
        raise index.error(f"the link {printable_name(name)} in it has a target of {member.size} bytes")
    inner = "/".join(part for part in name.split("/") if part not in ("", "."))
    with open_zipped(index, descriptor, member, inner, lambda: None) as file:
        return file.read().decode("utf-8", "surrogateescape")


def _shown(value: str | int) -> str:
    return repr(printable_name(value)) if isinstance(value, str) else str(value)
