"""Annotation files of one format in a data folder, and the part that each is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from detseg.annotations.listing import list_files, split_of
from detseg.errors import DataError

FOLDERS = ("annotations", "annotation", "labels", "csv")
"""Folders that may hold annotation files, in lower case, besides those of a part such as train/."""


def annotation_files(
    root: Path, files: list[str], suffix: str, is_one: Callable[[Path], bool]
) -> list[tuple[str, str]]:
    """(file, "train" | "val" | "test" | "") of each annotation file, train before val before test.

    They lie in the folder, in annotations/ or in a folder of a part. The part is told by a word of the file name
    (``val_boxes.csv``), else by the folder. Files of the same part belong together.

    Args:
        root: the data folder.
        files: all files in it, as ``list_files`` gives them.
        suffix: ".csv", ".json" or ".xml".
        is_one: whether a file is of the format; asked for files in the right places only.

    Raises:
        DataError: some files say which part they are and others do not: these may hold the same images.
    """
    found = []
    for file in files:
        path = PurePosixPath(file)
        place, depth = path.parent.name, len(path.parts) - 1
        usual = depth == 0 or (depth == 1 and (place.lower() in FOLDERS or bool(split_of(place))))
        if path.suffix.lower() == suffix and usual and is_one(root / file):
            found.append((file, split_in(path.stem) or split_of(place)))
    parts = {split for _, split in found}
    if "" in parts and len(parts) > 1:
        unclear = next(file for file, split in found if not split)
        raise DataError(
            f"{root}: several annotation files ({', '.join(file for file, _ in found[:5])}), and {unclear} does not "
            "say which part it is; name one of them as the data, or call it train, val or test"
        )
    order = ("train", "val", "test", "")
    return sorted(found, key=lambda entry: order.index(entry[1]))


def files_of(data: Path, split: str, suffix: str, is_one: Callable[[Path], bool]) -> tuple[Path, list[tuple[str, str]]]:
    """The data folder and its annotation files with their parts; ``data`` may be one such file itself.

    Args:
        split: what all files are; "" lets their names say.

    Raises:
        DataError: no such file in the folder, or see :func:`annotation_files`.
        FileNotFoundError: ``data`` does not exist.
    """
    if data.is_file():
        return data.parent, [(data.name, split)]
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such file or folder")
    found = annotation_files(data, list_files(data), suffix, is_one)
    if not found:
        raise DataError(f"{data}: no {suffix} file of this format in it; name the annotation file as the data")
    return data, [(file, split or part) for file, part in found]


def split_in(stem: str) -> str:
    """The one part that the words of a file name such as ``val_boxes`` or ``train-export`` speak of; "" for none."""
    splits = {split_of(word) for word in re.split(r"[^a-zA-Z]+", stem)} - {""}
    return splits.pop() if len(splits) == 1 else ""


def summary(what: str, found: list[tuple[str, str]]) -> str | None:
    """One line for humans: ``CVAT: annotations.xml (train)``; None if nothing was found."""
    named = [f"{file} ({split})" if split else file for file, split in found]
    return f"{what}: {', '.join(named[:5])}{', ...' if len(named) > 5 else ''}" if named else None
