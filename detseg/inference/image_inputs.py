"""Find the image files that a command is given."""

from __future__ import annotations

from pathlib import Path

from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES


def find_images(given: list[str]) -> list[tuple[Path, str]]:
    """(path, name) of every image file named or inside a folder named, sorted; the name is relative to its folder.

    Raises:
        FileNotFoundError: a path does not exist.
        DataError: no image is found.
    """
    found: list[tuple[Path, str]] = []
    for item in map(Path, given):
        if item.is_dir():
            base = item if len(given) == 1 else item.parent  # of several folders, the name tells which
            inside = sorted(p for p in item.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
            found.extend((path, path.relative_to(base).as_posix()) for path in inside)
        elif item.is_file():
            found.append((item, item.name))
        else:
            raise FileNotFoundError(f"{item}: no such file or folder")
    names = [name for _, name in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{twice} is given twice, and one result would replace the other; predict them in two runs")
    if not found:
        raise DataError(f"{', '.join(given)}: no images here; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found
