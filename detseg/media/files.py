"""Open and list the files of a data set, on the disk or in a container.

A container is a file that is a folder of other files: an archive (:mod:`detseg.media.archive`), or a video, which
contains its frames (:mod:`detseg.media.video`). The path of a file in it is the container's path followed by the name
inside, ``set.zip/images/a.jpg`` or ``clip.mp4/frame_000123.png``: readers join and store such paths as any other, and
open them with the functions of this file. A real folder with the suffix of a container stays a folder. Archives are
listed like folders; videos are listed as files, because their frames may be many. Nothing is written into a container.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from detseg.media.archive import ARCHIVE_SUFFIXES, open_archive
from detseg.media.video import Video
from detseg.media.video_files import is_video
from detseg.runtime import files

AnyPath = str | os.PathLike[str]

CONTAINER_SUFFIXES = ARCHIVE_SUFFIXES
"""Suffixes of files that are listed as folders, in lower case."""


class Container(Protocol):
    """A file that is read as a folder. Names inside have forward slashes and are relative to its top folder, ""."""

    def kind(self, name: str) -> str:
        """ "file", "folder" or "" for a name that does not exist."""

    def names(self, folder: str) -> list[str]:
        """Names of the files and folders directly in a folder."""

    def size(self, name: str) -> int:
        """Bytes of a file."""

    def open(self, name: str) -> BinaryIO:
        """A file, for reading from its start; seekable."""


class Entry(Protocol):
    """A file or folder in a folder, as in ``os.DirEntry``."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    def is_dir(self) -> bool: ...

    def is_file(self) -> bool: ...

    def is_symlink(self) -> bool: ...


class _ContainerEntry:
    def __init__(self, folder: str, name: str, kind: str) -> None:
        self.name = name
        self.path = f"{folder.rstrip('/')}/{name}"
        self._kind = kind

    def is_dir(self) -> bool:
        return self._kind == "folder"

    def is_file(self) -> bool:
        return self._kind == "file"

    def is_symlink(self) -> bool:
        return False  # links in an archive are resolved or refused by its index


def has_container_suffix(name: str) -> bool:
    """Whether a file of this name would be listed as a folder: an archive."""
    return name.lower().endswith(CONTAINER_SUFFIXES)


def container_of(path: AnyPath) -> tuple[str, str] | None:
    """The container in which a path is, or the archive that it is, and the name inside it ("" for the archive); None
    for a real path, or one that does not exist."""
    text = os.fspath(path).replace(os.sep, "/")
    start = 0
    while start < len(text):
        stop = text.find("/", start)
        stop = len(text) if stop < 0 else stop
        name = text[start:stop]
        is_container = has_container_suffix(name) or (is_video(name) and stop < len(text))
        if is_container and os.path.isfile(text[:stop]):  # noqa: PTH113
            return text[:stop], text[stop + 1 :]
        start = stop + 1
    return None


def is_file(path: AnyPath) -> bool:
    """Whether a path is a file, on the disk or in a container; containers are folders."""
    inside = container_of(path)
    if inside is None:
        return os.path.isfile(path)  # noqa: PTH113
    return _open_container(inside[0]).kind(inside[1]) == "file"


def is_dir(path: AnyPath) -> bool:
    """Whether a path is a folder, on the disk or in a container, or a container."""
    inside = container_of(path)
    if inside is None:
        return os.path.isdir(path)  # noqa: PTH112
    return not inside[1] or _open_container(inside[0]).kind(inside[1]) == "folder"


def exists(path: AnyPath) -> bool:
    """Whether a path is a file or folder, on the disk or in a container."""
    inside = container_of(path)
    if inside is None:
        return os.path.exists(path)  # noqa: PTH110
    return not inside[1] or _open_container(inside[0]).kind(inside[1]) != ""


def file_size(path: AnyPath) -> int:
    """Bytes of a file.

    Raises:
        OSError: there is no such file.
        DataError: a container that cannot be read.
    """
    inside = container_of(path)
    if inside is None:
        return Path(path).stat().st_size
    return _file_in(path, inside).size(inside[1])


def open_file(path: AnyPath) -> BinaryIO:
    """Open a file for reading its bytes; seekable.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        DataError: a container, or a file in it, that cannot be read.
    """
    inside = container_of(path)
    if inside is None:
        return Path(path).open("rb")
    return _file_in(path, inside).open(inside[1])


def read_bytes(path: AnyPath) -> bytes:
    """The content of a file; errors are those of :func:`open_file`."""
    with open_file(path) as file:
        return file.read()


def scandir(folder: AnyPath) -> AbstractContextManager[Iterable[Entry]]:
    """The files and folders in a folder, as ``os.scandir``.

    Raises:
        OSError: there is no such folder.
        DataError: a container that cannot be read.
    """
    inside = container_of(folder)
    if inside is None:
        return os.scandir(folder)
    container, name = _open_container(inside[0]), inside[1].strip("/")
    if container.kind(name) != "folder":
        raise _missing(folder, container.kind(name))
    entries = [
        _ContainerEntry(os.fspath(folder), inner, container.kind(f"{name}/{inner}" if name else inner))
        for inner in container.names(name)
    ]
    return nullcontext(entries)


def listdir(folder: AnyPath) -> list[str]:
    """Names of the files and folders in a folder; errors are those of :func:`scandir`."""
    with scandir(folder) as entries:
        return [entry.name for entry in entries]


def iterdir(folder: Path) -> Iterator[Path]:
    """Paths of the files and folders in a folder; errors are those of :func:`scandir`."""
    return (folder / name for name in listdir(folder))


def copy_file(source: AnyPath, target: Path) -> None:
    """Copy the content of a file to a new file on the disk; no half of it stays if there is no space. A frame of a
    video is written as PNG.

    Raises:
        WriteError: no space.
        OSError, DataError: see :func:`open_file`.
    """
    inside = container_of(source)
    if inside is None:
        files.copy_file(Path(source), target)
        return
    content = Video(inside[0]).png(inside[1]) if is_video(inside[0]) else read_bytes(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.write_errors(target, len(content)):
        try:
            target.write_bytes(content)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def _open_container(path: str) -> Container:
    """The container of a file: here a new kind is added."""
    return Video(path) if is_video(path) else open_archive(path)


def _file_in(path: AnyPath, inside: tuple[str, str]) -> Container:
    """The container of a file in it; an OSError if there is no such file."""
    container = _open_container(inside[0])
    kind = container.kind(inside[1])
    if kind != "file":
        raise _missing(path, kind)
    return container


def _missing(path: Any, kind: str) -> OSError:
    if kind == "folder":
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if kind == "file":
        return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
