"""Write files atomically: completely, or not at all; a full disk is an error that states what is needed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
"""Errors of a write that has no space: disk full, quota used up, file larger than the process may write."""

BROKEN = (errno.EIO, errno.EROFS)
"""Errors of a disk that cannot be written."""

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")
"""Names of the temporary files of :func:`atomic_write`, which only a killed process leaves."""

REPEAT = "free space, then repeat the command"


class WriteError(OSError):
    """A file that could not be written; its old content is unchanged.

    Attributes:
        errno: of the system's error.
        problem: what happened to which file.
        remedy: what to do.
    """

    def __init__(self, number: int, problem: str, remedy: str = REPEAT) -> None:
        super().__init__(number, problem)
        self.problem, self.remedy = problem, remedy

    def __reduce__(self) -> tuple[type[WriteError], tuple[int, str, str]]:
        return type(self), (self.errno or 0, self.problem, self.remedy)

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


@contextmanager
def write_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Convert the error of a write without space, or to a broken disk, to a :class:`WriteError`.

    Args:
        path: the file that is written.
        needed: its bytes; None if unknown.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        number = error.errno or 0
        if number in FULL:
            raise WriteError(number, f"{path}: {_no_space(path, number, needed)}") from error
        if number in BROKEN:
            problem = f"{path}: could not be written ({error.strerror})"
            raise WriteError(number, problem, "check the disk, then repeat the command") from error
        raise


def _no_space(path: Path, number: int, needed: int | None) -> str:
    """What is needed, and what there is."""
    size = "" if needed is None else f"{size_text(needed)} needed, "
    if number == errno.EFBIG:
        return f"larger than this process may write ({size}see ulimit -f)"
    what = "the disk quota is used up" if number == getattr(errno, "EDQUOT", None) else "no space left on the disk"
    free = free_space(path)
    return f"{what} ({size}{'unknown' if free is None else size_text(free)} free)"


def size_text(count: int) -> str:
    """A number of bytes in kB, MB or GB."""
    if count >= 10**9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.3g} MB" if count >= 10**4 else f"{-(-count // 1000)} kB"


def free_space(path: Path) -> int | None:
    """Free bytes on the disk of a file or folder that need not exist yet; None if the system does not tell."""
    try:
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        usage = shutil.disk_usage(existing)
    except (OSError, StopIteration):
        return None
    return usage.free if usage.total else None


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, size: int | None = None, before_replacing: Callable[[], None] | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path``; at the end of the block it is flushed, synced and renamed to ``path``.

    If the block raises, ``path`` keeps its old content and the temporary file is removed. The order write, fsync,
    replace, fsync of the folder follows Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014).

    Args:
        size: bytes that will be written, for the message if there is no space.
        before_replacing: called when the new content is on disk and ``path`` still has the old content.

    Raises:
        WriteError: no space, or a broken disk.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    with write_errors(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~_umask())  # mkstemp creates private files; use the usual permissions
            if before_replacing is not None:
                before_replacing()
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        if not hasattr(os, "O_DIRECTORY"):
            return  # Windows cannot open a folder, so its entry is not synced
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(
    path: str | os.PathLike[str], content: bytes, *, before_replacing: Callable[[], None] | None = None
) -> None:
    """Write ``content`` atomically; errors as :func:`atomic_write`."""
    with atomic_write(path, size=len(content), before_replacing=before_replacing) as file:
        file.write(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as UTF-8 JSON, atomically: a list with one entry per line, anything else indented.

    Raises:
        ValueError: NaN or infinity, which JSON does not support.
        OSError: as :func:`atomic_write`.
    """
    if isinstance(value, list):
        lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    else:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically; errors as :func:`atomic_write`."""
    write_bytes(path, text.encode())


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file; no half of it stays if there is no space.

    Raises:
        WriteError: no space.
        OSError: a file cannot be opened.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with write_errors(target, source.stat().st_size):
        try:
            shutil.copyfile(source, target)
        except OSError:
            target.unlink(missing_ok=True)
            raise


def read_bytes(path: Path) -> bytes:
    """The content of a file; an OSError names it also if it occurs while the file is read."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def remove_temporary(folder: Path, *, older_than: float | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Args:
        folder: one that no other process writes into, unless ``older_than`` is given.
        older_than: time in seconds since the epoch; files that were written later stay.
    """
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process has just removed it
            if TEMPORARY.fullmatch(path.name) and (older_than is None or path.stat().st_mtime < older_than):
                path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
