"""Where ``predict`` writes the files of each image: paths that follow from its name and its results."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from detseg.annotations.listing import is_image, is_inside
from detseg.annotations.own_files import DRAWING_SUFFIX, DRAWINGS, is_drawing

LONGEST_NAME = 236
"""Bytes of the longest name of a file: file systems allow 255, and its temporary file has 14 more."""

LABEL_SUFFIXES = {"masks": ".png", "class-masks": ".png", "labelme": ".json", "yolo": ".txt"}
"""Outputs with a file per image that has the image's name and another suffix."""

CROP_SUFFIX = ".jpg"
_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*\x7f]|^[. ]+|[. ]+$')
_LONGEST_FOLDER = 100


def folder_of(folder: Path, kind: str) -> Path:
    """The folder of an output."""
    return folder / (DRAWINGS if kind == "images" else f"predicted-{kind}")


class OutputPaths:
    """The paths of one ``predict``.

    Args:
        folder: output folder.
        names: of all images. Those that differ only in their suffix keep it in the names of masks and annotations.

    Attributes:
        same_stem: names of images that share their stem with another one.
    """

    def __init__(self, folder: Path, names: Iterable[str] = ()) -> None:
        self.folder = folder
        first: dict[str, str] = {}
        self.same_stem: set[str] = set()
        for name in names:
            other = first.setdefault(_stem(name).lower(), name)
            if other != name:
                self.same_stem |= {name, other}

    def drawing(self, name: str) -> Path:
        """``images/<name>.jpg``."""
        return drawing_path(self.folder, name)

    def crop(self, name: str, row: int, result: Mapping[str, Any]) -> Path:
        """``predicted-crops/<class>/<name>-<number>.jpg``: the layout of a data set of classes in folders.

        Args:
            row: of the detection, from 0.
            result: of the detection, with its ``category`` and ``category_id``.
        """
        path, end = PurePosixPath(name), f"-{row + 1}{CROP_SUFFIX}"
        top = folder_of(self.folder, "crops") / class_folder(result)
        return top / path.parent / f"{_shortened(path.name, end)}{end}"

    def mask(self, kind: str, name: str) -> Path:
        """``predicted-masks/<name without its suffix>.png`` or ``predicted-class-masks/...``."""
        return self.annotation(kind, name)

    def annotation(self, kind: str, name: str) -> Path:
        """The file of an image for an output of :data:`LABEL_SUFFIXES`."""
        return _label_path(self.folder, kind, name, keep_suffix=name in self.same_stem)


def drawing_path(folder: Path, name: str) -> Path:
    """Where the drawing of an image is: ``images/<name>.jpg``; a name that is too long for that is shortened, and a
    checksum of it keeps it distinct."""
    path = PurePosixPath(name)
    return folder / DRAWINGS / path.parent / f"{_shortened(path.name, DRAWING_SUFFIX)}{DRAWING_SUFFIX}"


def class_folder(result: Mapping[str, Any]) -> str:
    """The name of the folder for the crops of a class: its name; with its id if the name cannot be that of a folder."""
    name = str(result["category"])
    safe = _UNSAFE.sub("_", name).encode()[:_LONGEST_FOLDER].decode(errors="ignore")
    return name if safe == name and name else f"{safe}~{result['category_id']}"


def files_of(folder: Path, name: str, results: Iterable[Mapping[str, Any]]) -> Iterator[Path]:
    """All files that ``predict`` may have written for an image, those inside the output folder only."""
    paths = OutputPaths(folder)
    drawing = paths.drawing(name)
    if is_drawing(drawing.name):
        yield from _inside(folder / DRAWINGS, drawing)
    for kind in LABEL_SUFFIXES:
        for keep_suffix in (False, True):
            yield from _inside(folder_of(folder, kind), _label_path(folder, kind, name, keep_suffix=keep_suffix))
    for row, result in enumerate(results):
        if "category" in result and "category_id" in result:
            yield from _inside(folder_of(folder, "crops"), paths.crop(name, row, result))


def remove_file(folder: Path, path: Path) -> bool:
    """Remove a file, and the folders below ``folder`` that are then empty; whether there was one."""
    if not (path.is_file() or path.is_symlink()):
        return False
    path.unlink()
    parent = path.parent
    while parent != folder and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent
    return True


def _inside(top: Path, path: Path) -> Iterator[Path]:
    """The path if it is in the folder ``top``: names in a file of results are not trusted."""
    if is_inside(os.path.realpath(path.parent), os.path.realpath(top)):
        yield path


def _label_path(folder: Path, kind: str, name: str, *, keep_suffix: bool) -> Path:
    top, suffix = folder_of(folder, kind), LABEL_SUFFIXES[kind]
    if kind == "yolo":
        top = top / "labels"
    path = PurePosixPath(name if keep_suffix else _stem(name))
    return top / path.parent / f"{_shortened(path.name, suffix)}{suffix}"


def _stem(name: str) -> str:
    """A name without the suffix of an image."""
    return str(PurePosixPath(name).with_suffix("")) if is_image(name) else name


def _shortened(name: str, suffix: str) -> str:
    """A file name that can have ``suffix`` added; a checksum keeps a shortened one distinct."""
    if len(name.encode()) + len(suffix.encode()) <= LONGEST_NAME:
        return name
    end = f"-{sha256(name.encode()).hexdigest()[:16]}{PurePosixPath(name).suffix if is_image(name) else ''}"
    kept = name.encode()[: LONGEST_NAME - len(suffix.encode()) - len(end.encode())]
    return kept.decode(errors="ignore") + end
