"""Find the image files in the paths passed to a command."""

from __future__ import annotations

from pathlib import Path

from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES
from detseg.runtime.missing_path import missing_path


def find_images(paths: list[str]) -> list[tuple[Path, str]]:
    """(path, name) of every image file in ``paths`` or in their folders, sorted; names are relative to the folder.

    Raises:
        FileNotFoundError: a path does not exist.
        DataError: no image is found.
    """
    images: list[tuple[Path, str]] = []
    for item in map(Path, paths):
        if item.is_dir():
            base = item if len(paths) == 1 else item.parent  # with several folders, names include the folder
            files = sorted(p for p in item.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
            images.extend((path, path.relative_to(base).as_posix()) for path in files)
        elif item.is_file():
            images.append((item, item.name))
        else:
            raise missing_path(item)
    names = [name for _, name in images]
    duplicate = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if duplicate is not None:
        raise DataError(f"{duplicate} occurs twice, and one result would replace the other; predict them in two runs")
    if not images:
        raise DataError(f"{', '.join(paths)}: no images found; supported suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images
