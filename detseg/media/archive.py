"""Open archives (zip, tar, compressed tar) as folders, whose files are read in place and never extracted.

An archive is indexed once in a process, and again if the file changes. Worker processes get the index and the
decompressed content from the process that starts them: forked ones inherit them, others by :class:`OpenedArchives`.
Reading moves no shared position, so threads and processes may read at the same time.
"""

from __future__ import annotations

import os
import threading
from multiprocessing.context import get_spawning_popen
from typing import Any, BinaryIO

from detseg.errors import DataError
from detseg.media.archive_file import StoredFile
from detseg.media.archive_index import ArchiveIndex
from detseg.media.archive_tar import index_tar
from detseg.media.archive_unpack import decompressed
from detseg.media.archive_zip import index_zip, open_zipped

COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")
ARCHIVE_SUFFIXES = (".zip", ".tar", *COMPRESSED_TAR_SUFFIXES)
"""Suffixes of archives that are read, in lower case."""

_Signature = tuple[int, int, int, int]


class Archive:
    """An archive as a folder; see ``files.Container``."""

    def __init__(self, path: str) -> None:
        """Index an archive.

        Raises:
            DataError: it is damaged, hostile, or of another kind than its suffix.
            OSError: it cannot be opened.
        """
        self.path = path
        with open(path, "rb") as file:  # noqa: PTH123
            self.signature = _signature(os.fstat(file.fileno()))
            self._is_zip = path.lower().endswith(".zip")
            self._content = None if self._is_zip else decompressed(path, file)
            try:
                self._index: ArchiveIndex = (
                    index_zip(path, file) if self._is_zip else index_tar(path, self._content or file)
                )
            except MemoryError:
                raise DataError(f"{path}: not enough memory for the names of its files; split it") from None

    def kind(self, name: str) -> str:
        """ "file", "folder" or "" for a name that does not exist."""
        entry = self._index.find(name)
        return "" if entry is None else "file" if isinstance(entry, int) else "folder"

    def names(self, folder: str) -> list[str]:
        """Names of the files and folders directly in a folder."""
        entry = self._index.find(folder)
        assert isinstance(entry, dict)
        return list(entry)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._index.member(self._row(name)).size

    def open(self, name: str) -> BinaryIO:
        """A file, for reading from its start; it decompresses no more than is read.

        Raises:
            DataError: it cannot be read: encrypted, a link out of the archive, a bomb, damaged.
            OSError: the archive cannot be opened.
        """
        row = self._row(name)
        name = "/".join(part for part in name.split("/") if part not in ("", "."))
        self._index.check(row, name)
        name = self._index.target_of.get(name, name)
        member = self._index.member(row)
        if self._content is not None:
            start, size = member.start, member.size
            return StoredFile(self._content.fileno(), start, size, f"{self.path}/{name}", member.checksum, None)  # type: ignore[return-value]
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if self._is_zip:
                return open_zipped(self._index, descriptor, member, name, lambda: os.close(descriptor))  # type: ignore[return-value]
            return StoredFile(  # type: ignore[return-value]
                descriptor,
                member.start,
                member.size,
                f"{self.path}/{name}",
                member.checksum,
                lambda: os.close(descriptor),
            )
        except BaseException:
            os.close(descriptor)
            raise

    def __getstate__(self) -> dict[str, Any]:
        """While a process is started, which shares the decompressed content."""
        from multiprocessing.reduction import DupFd  # POSIX only

        content = None if self._content is None else DupFd(self._content.fileno())
        return vars(self) | {"_content": content}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._content is not None:
            self._content = os.fdopen(state["_content"].detach(), "rb")

    def _row(self, name: str) -> int:
        entry = self._index.find(name)
        assert isinstance(entry, int)
        return entry


class OpenedArchives:
    """The archives that a process has opened, for the worker processes that it starts: an attribute of what is sent to
    them. Copies, and pickles that are not for a new process, contain nothing."""

    def __getstate__(self) -> dict[str, list[Archive]]:
        is_shared = get_spawning_popen() is not None and hasattr(os, "pread")
        return {"archives": list(_opened.values()) if is_shared else []}

    def __setstate__(self, state: dict[str, list[Archive]]) -> None:
        for archive in state["archives"]:
            _opened.setdefault(archive.path, archive)


_opened: dict[str, Archive] = {}
_lock = threading.Lock()


def open_archive(path: str) -> Archive:
    """The archive of a path, indexed when it is first opened and when the file has changed.

    Raises:
        DataError: see :class:`Archive`.
        OSError: it cannot be opened.
    """
    signature = _signature(os.stat(path))  # noqa: PTH116  (pathlib is slower, and this is called for every image)
    archive = _opened.get(path)
    if archive is not None and archive.signature == signature:
        return archive
    with _lock:
        archive = _opened.get(path)
        if archive is None or archive.signature != signature:
            archive = _opened[path] = Archive(path)
        return archive


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _new_lock() -> None:
    """A forked process does not have the thread that may hold the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
