"""Write files atomically: completely, or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, before_replacing: Callable[[], None] | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path``; at the end of the block it is flushed, synced and renamed to ``path``.

    If the block raises, ``path`` keeps its old content and the temporary file is removed. The order write, fsync,
    replace, fsync of the folder follows Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014).

    Args:
        before_replacing: called when the new content is on disk and ``path`` still has the old content.
    """
    path = Path(path)
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


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as UTF-8 JSON, atomically: a list with one entry per line, anything else indented.

    Raises:
        ValueError: NaN or infinity, which JSON does not support.
    """
    if isinstance(value, list):
        lines = [json.dumps(item, ensure_ascii=False, allow_nan=False) for item in value]
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    else:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
