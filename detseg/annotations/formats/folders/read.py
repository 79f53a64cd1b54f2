"""Reader of image folders: one folder a class, in one tree or below train, val and test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.builder import TableBuilder
from detseg.annotations.image_files import read_headers
from detseg.annotations.listing import is_image, list_files, split_of, subfolders
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError


def split_folders(files: list[str]) -> dict[str, str]:
    """Folder -> "train", "val" or "test", if all folders that hold images are such parts; else empty.

    All of them, because "train" may also be the class beside "bus".
    """
    folders = [name for name, inner in subfolders(files).items() if name and any(map(is_image, inner))]
    splits = {name: split_of(name) for name in folders}
    return splits if all(splits.values()) else {}


def class_folders(files: list[str]) -> list[str]:
    """The classes that :func:`read_image_folder` would find in these files, sorted; empty if there are none."""
    return sorted({name for _, name, _ in _sorted_out(files, RepairLog())})


def read_image_folder(root: str | os.PathLike[str], *, classes: Sequence[str] | None = None) -> AnnotationTable:
    """The table of a folder with one sub-folder a class, or with train, val, test folders of such.

    A class folder may have folders of its own. ``class_index`` follows the sorted class names.

    Args:
        root: the folder.
        classes: takes only these classes, in this order.

    Raises:
        DataError: no class folder, an unknown name in ``classes``, an image that cannot be read, or a link that leads
            out of ``root``.
        OSError: the folder cannot be read.
    """
    root = Path(root)
    notes = RepairLog()
    files = list_files(root)
    found = _sorted_out(files, notes)
    names = sorted({name for _, name, _ in found})
    if not names:
        raise DataError(f"{root}: no images in class folders; expected {root.name}/<class>/<image>")
    _note_empty(root, split_folders(files), names, notes)
    if classes is not None:
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise DataError(f"{root}: no class folder {', '.join(unknown)}; there are {', '.join(names)}")
        for _, name, file in found:
            if name not in classes:
                notes.add("image of a class that is not selected left out", file)
        found = [entry for entry in found if entry[1] in classes]
        names = list(classes)
    headers = read_headers(root, [file for _, _, file in found], root.name)
    builder = TableBuilder(ClassMap.from_names(names), root, source=str(root))
    builder.notes.merge(notes)
    for (split, name, file), header in zip(found, headers, strict=True):
        builder.add_image(
            file, header.size_hw, orientation=header.orientation, split=split, class_index=names.index(name)
        )
    return builder.build()


def _sorted_out(files: list[str], notes: RepairLog) -> list[tuple[str, str, str]]:
    """(split, class, file) of every image in a class folder; the rest is noted."""
    splits = split_folders(files)
    found = []
    for file in files:
        parts = file.split("/")
        split = splits.get(parts[0], "") if len(parts) > 1 else ""
        if not is_image(file):
            notes.add("file that is not an image left out", file)
        elif len(parts) < (3 if split else 2):
            notes.add("image outside any class folder left out", file)
        else:
            found.append((split, parts[1] if split else parts[0], file))
    return found


def _note_empty(root: Path, splits: dict[str, str], names: list[str], notes: RepairLog) -> None:
    """Note folders that look like classes and hold no image; they become no class."""
    for parent in [root / folder for folder in splits] or [root]:
        for folder in sorted(parent.iterdir()):
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names:
                notes.add("folder without images is not taken as a class", folder.relative_to(root).as_posix())
