"""What lies in a data folder, by name only."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES

LITTER = ("Thumbs.db", "desktop.ini", "__MACOSX")
"""What file managers and archivers leave behind; passed over like names that begin with a dot."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pngimages", "jpegimages", "photos", "pictures")
"""Usual names of the folder with the images, in lower case; else it is the only other folder with images."""

_SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def list_files(root: str | os.PathLike[str]) -> list[str]:
    """All files below ``root``, sorted, as paths relative to it with forward slashes.

    Raises:
        DataError: a link leads out of ``root``: what is read is only what lies in the folder that was named.
        OSError: the folder cannot be read.
    """
    inside = os.path.realpath(root).rstrip(os.sep) + os.sep
    found: list[str] = []

    def walk(folder: str, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in LITTER:
                    continue
                name = prefix + entry.name
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not real.startswith(inside):
                        raise DataError(
                            f"{root}: the link {name} leads out of this folder to {real}; copy the files into it, "
                            "or name the folder that holds them (--images for images of an annotation file)"
                        )
                    if entry.is_dir():
                        continue  # its files are listed where they are
                if entry.is_dir():
                    walk(entry.path, name + "/")
                elif entry.is_file():
                    found.append(name)

    walk(os.fspath(root), "")
    return sorted(found)


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def split_of(name: str) -> str:
    """The part of a data set (train, val, test) that a folder of this name (train2017, Valid) holds; "" for none."""
    return _SPLIT_OF.get(name.lower().rstrip("0123456789_-"), "")


def subfolders(files: list[str]) -> dict[str, list[str]]:
    """Files by their first folder, as paths below that; files that lie in none are under ""."""
    parts: dict[str, list[str]] = {}
    for file in files:
        folder, slash, rest = file.partition("/")
        parts.setdefault(folder if slash else "", []).append(rest if slash else folder)
    return parts


def key_of(file: str) -> str:
    """A file's path without its suffix, in one Unicode form: what an image and its mask have in common."""
    folder, slash, name = file.rpartition("/")
    return unicodedata.normalize("NFC", f"{folder}{slash}{Path(name).stem}")
