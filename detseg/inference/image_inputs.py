"""Find the image files in the paths passed to a command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from detseg.annotations.listing import IGNORED_NAMES, is_image, links_hint, list_folder
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES
from detseg.runtime.missing_path import missing_path


def find_images(paths: list[str], notes: RepairLog, follow_links: bool = False) -> list[tuple[Path, str]]:
    """(path, name) of every image file in ``paths`` or in their folders, sorted; names are relative to the folder.

    Args:
        paths: files and folders.
        notes: files in the folders that are left out are noted.
        follow_links: follow links in the folders that point outside.

    Raises:
        FileNotFoundError: a path does not exist.
        DataError: no image is found, or two have the same name.
    """
    images: list[tuple[Path, str]] = []
    links: dict[str, str] = {}
    for item in map(Path, paths):
        if item.is_dir():
            prefix = "" if len(paths) == 1 else f"{item.name}/"  # with several folders, names include the folder
            listing = list_folder(item, follow_links)
            images.extend((item / file, prefix + file) for file in listing.files if is_image(file))
            for file in listing.files:
                if not is_image(file):
                    notes.add("file without the suffix of an image left out", prefix + file)
            for link, real in listing.links.items():
                notes.add("link to another folder not followed, pass --follow-links", f"{prefix}{link} to {real}")
            for name in listing.hidden:
                is_folder = (item / name).is_dir() and Path(name).name.lower() not in IGNORED_NAMES
                if is_folder or is_image(name):
                    notes.add("hidden file or folder left out", prefix + name)
            links |= listing.links
        elif item.is_file():
            images.append((item, item.name))
        else:
            raise missing_path(item)
    if not images:
        raise DataError(
            f"{', '.join(paths)}: no images found; supported suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}"
            f"{links_hint(links)}"
        )
    name, count = Counter(name for _, name in images).most_common(1)[0]
    if count > 1:
        raise DataError(f"{name} occurs twice, and one result would replace the other; predict them in two runs")
    return images
