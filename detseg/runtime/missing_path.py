"""The error for a path that does not exist: the nearest existing name, or that a URL must be downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from detseg.nearest import nearest

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?=[^/])")
"""The beginning of a URL, also after ``Path`` has merged its slashes. A drive of Windows has one letter."""

NAMED = 5
"""Names of a folder listed in a message."""


def missing_path(path: str | os.PathLike[str], kind: str = "file or folder") -> FileNotFoundError:
    """Return the error to raise for ``path``, which does not exist and should be a ``kind``."""
    text = os.fspath(path)
    url = _URL.match(text.replace("\\", "/"))
    if url is not None:
        rest = text[url.end() :]
        if url[1].lower() == "file":
            return FileNotFoundError(f"file:///{rest}: no such {kind}, because it is a URL; pass the path, /{rest}")
        return FileNotFoundError(
            f"{url[1]}://{rest}: no such {kind}, because it is a URL; download it, unpack it if it is an archive, and "
            "pass the local path"
        )
    home = os.path.expanduser(text)  # noqa: PTH111  (pathlib raises for an unknown user)
    if home != text:
        return FileNotFoundError(f"{text}: no such {kind}; ~ is not replaced by your home folder here: pass {home}")
    return FileNotFoundError(f"{text}: no such {kind}; {_nearest(Path(text))}")


def _nearest(path: Path) -> str:
    """Where the path ends to exist, and the name there that is most like the missing one."""
    existing = path.parent
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    name, *rest = path.relative_to(existing).parts
    first = existing / name
    if first.exists():
        return f"{first} is a file, not a folder; check the path"
    if first.is_symlink():
        return f"{first} is a link to {first.readlink()}, which does not exist; correct the link"
    place = f"the current folder {Path.cwd()}" if existing == Path() else str(existing)
    try:
        names = sorted(entry for entry in os.listdir(existing) if not entry.startswith("."))  # noqa: PTH208
    except OSError as error:
        return f"{place} cannot be read ({error.strerror}); check the path"
    if not names:
        return f"{place} is empty; check the path"
    close = nearest(name, names)
    if close:
        similar = existing / close[0]
        whole = similar.joinpath(*rest)
        return f"{place} has no {name}; did you mean {whole if whole.exists() else similar}?"
    more = ", ..." if len(names) > NAMED else ""
    return f"{place} has no {name}; it contains {', '.join(names[:NAMED])}{more}; check the path"
