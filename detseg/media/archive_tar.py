"""Index a tar: the names of its files and where their bytes are; ``tarfile`` parses the headers."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any, BinaryIO

from detseg.errors import DataError, reason_of
from detseg.media.archive_index import NO_CHECKSUM, ArchiveIndex, Member

MAX_HEADER = 2**20
"""Bytes of a long name or of other extended headers of one file."""

AGAIN = "tar -cf NEW.tar FOLDER"

_DOWNLOAD = "download or copy it again"
_BLOCK = tarfile.BLOCKSIZE


class _HeaderReader(io.RawIOBase):
    """A file for ``tarfile`` that refuses to read more than a header at once."""

    def __init__(self, index: ArchiveIndex, file: BinaryIO) -> None:
        super().__init__()
        self._index, self._file = index, file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER:
            raise self._index.error(f"a header of {size} bytes at {self._file.tell()}; at most {MAX_HEADER} are read")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def index_tar(path: str, file: BinaryIO) -> ArchiveIndex:
    """Index a tar (not compressed).

    Args:
        path: of the archive, for messages.
        file: its content.

    Raises:
        DataError: not a tar, truncated, damaged; or see :class:`ArchiveIndex`.
    """
    from detseg.runtime.reporter import progress  # with tqdm, which images in files do not need

    index = ArchiveIndex(path, file.seek(0, os.SEEK_END), AGAIN)
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=_HeaderReader(index, file), mode="r:", errors="surrogateescape")  # noqa: SIM115
        for info in progress(_entries(tar, index), f"{path}: reading names", unit="file", leave=False):
            _add(index, info)
    except DataError:
        raise
    except tarfile.ReadError as error:
        raise index.error(f"not a tar, or a damaged one ({reason_of(error)})", _DOWNLOAD) from error
    except Exception as error:  # tarfile raises many types on untrusted headers
        raise index.error(f"a damaged tar ({reason_of(error)})", _DOWNLOAD) from error
    _check_end(index, file, tar.offset)
    index.finish()
    return index


def _entries(tar: tarfile.TarFile, index: ArchiveIndex) -> Any:
    """The headers, without keeping them; an offset that does not grow would never end."""
    position = -1
    while (info := tar.next()) is not None:
        if info.size < 0 or info.offset <= position:
            raise index.error(f"a damaged header: {info.size} bytes at {info.offset_data}", _DOWNLOAD)
        position = info.offset
        yield info
        tar.members = []  # type: ignore[attr-defined]


def _add(index: ArchiveIndex, info: tarfile.TarInfo) -> None:
    if info.isdir():
        index.add_folder(info.name)
    elif info.issym() or info.islnk():
        index.add_link(info.name, info.linkname, from_top=info.islnk())
    elif info.issparse():
        problem = f"stored as a sparse file, which is not read; make the archive again without -S ({AGAIN})"
        index.add_file(info.name, Member(info.offset_data, 0, 0, NO_CHECKSUM, False), problem)
    elif info.isreg():
        index.add_file(info.name, Member(info.offset_data, info.size, info.size, NO_CHECKSUM, False))
    else:
        problem = "a device or pipe, not a file; remove it from the archive"
        index.add_file(info.name, Member(info.offset_data, 0, 0, NO_CHECKSUM, False), problem)


def _check_end(index: ArchiveIndex, file: BinaryIO, end: int) -> None:
    """DataError unless the headers end with blocks of zeros: ``tarfile`` ends silently at a damaged header, too."""
    file.seek(end)
    rest = file.read(20 * _BLOCK)
    if len(rest) < _BLOCK:
        raise index.error(f"a truncated tar: the blocks that mark its end are missing at byte {end}", _DOWNLOAD)
    if rest[:_BLOCK].strip(b"\0"):
        raise index.error(f"a damaged tar: no header at byte {end}", _DOWNLOAD)
    following = next(
        (number for number in range(0, len(rest), _BLOCK) if rest[number : number + _BLOCK].strip(b"\0")), 0
    )
    if following:
        raise index.error(
            f"several archives joined: files follow its end, at byte {end + following}",
            "unpack it (tar -i -xf) and pass the folder",
        )
