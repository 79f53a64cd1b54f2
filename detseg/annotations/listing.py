"""List the files of a data folder, and classify them by name only."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES

IGNORED_NAMES = ("Thumbs.db", "desktop.ini", "__MACOSX")
"""Files created by file managers and archivers; ignored like names that begin with a dot."""

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "pngimages", "jpegimages", "photos", "pictures")
"""Usual names of the image folder, in lower case; otherwise it is the only other folder with images."""

MASK_FOLDERS = (
    "pedmasks", "masks", "mask", "label", "labels", "segmentationclass", "segmentationobject", "segmentations",
    "segmentation", "seg", "annotations", "annotation", "gt",
)  # fmt: skip
"""Usual names of the mask folder, in lower case; the first one whose masks match images is used."""

_SPLIT_OF = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def list_files(root: str | os.PathLike[str]) -> list[str]:
    """List all files in ``root`` and its subfolders, sorted, as paths relative to it with forward slashes.

    Raises:
        DataError: a link points outside ``root``: only files inside the data folder are read.
        OSError: the folder cannot be read.
    """
    inside = os.path.realpath(root).rstrip(os.sep) + os.sep
    files: list[str] = []

    def walk(folder: str, prefix: str) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in IGNORED_NAMES:
                    continue
                name = prefix + entry.name
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                    if not real.startswith(inside):
                        raise DataError(
                            f"{root}: the link {name} points outside this folder, to {real}; copy the files into it, "
                            "or pass the folder that contains them (--images for images of an annotation file)"
                        )
                    if entry.is_dir():
                        continue  # its files are listed at their real path
                if entry.is_dir():
                    walk(entry.path, name + "/")
                elif entry.is_file():
                    files.append(name)

    walk(os.fspath(root), "")
    return sorted(files)


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def split_of(name: str) -> str:
    """The split (train, val, test) that a folder name stands for (train2017, Valid); "" if none."""
    return _SPLIT_OF.get(name.lower().rstrip("0123456789_-"), "")


def subfolders(files: list[str]) -> dict[str, list[str]]:
    """Group files by their top folder, as paths relative to it; files without a folder are under ""."""
    files_of: dict[str, list[str]] = {}
    for file in files:
        folder, slash, rest = file.partition("/")
        files_of.setdefault(folder if slash else "", []).append(rest if slash else folder)
    return files_of


def key_of(file: str) -> str:
    """A file's path without its suffix, Unicode-normalized: equal for an image and its mask."""
    folder, slash, name = file.rpartition("/")
    return unicodedata.normalize("NFC", f"{folder}{slash}{Path(name).stem}")
