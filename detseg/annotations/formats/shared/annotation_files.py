"""Find the annotation files of one format in a data folder, and the split of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from detseg.annotations.formats.format import Detected
from detseg.annotations.listing import list_files, split_of, without_archives
from detseg.errors import DataError
from detseg.media.files import is_dir, is_file

FOLDERS = ("annotations", "annotation", "labels", "csv")
"""Folders that may hold annotation files, in lower case, besides split folders such as train/."""


def annotation_files(
    root: Path, files: list[str], suffix: str, has_format: Callable[[Path], bool]
) -> list[tuple[str, str]]:
    """(file, "train" | "val" | "test" | "") of each annotation file, train before val before test.

    The files are directly in the folder, in annotations/ or in a split folder. The split is taken from a word of the
    file name (``val_boxes.csv``), else from the folder name. Files of the same split belong together.

    Args:
        root: the data folder.
        files: all files in it, as returned by ``list_files``.
        suffix: ".csv", ".json" or ".xml".
        has_format: whether a file is in the format; called only for files in the expected folders.

    Raises:
        DataError: some files state their split and others do not: they may hold the same images.
    """
    matches = []
    for file in files:
        path = PurePosixPath(without_archives(file))
        if _is_expected(path, suffix) and has_format(root / file):
            matches.append((file, split_in_name(path.stem) or split_of(path.parent.name)))
    splits = {split for _, split in matches}
    if "" in splits and len(splits) > 1:
        without_split = next(file for file, split in matches if not split)
        raise DataError(
            f"{root}: several annotation files ({', '.join(file for file, _ in matches[:5])}), and {without_split} "
            "does not state its split; pass one of them as the data, or put train, val or test into its name"
        )
    order = ("train", "val", "test", "")
    return sorted(matches, key=lambda entry: order.index(entry[1]))


def locate_annotation_files(
    data: Path, split: str, suffix: str, has_format: Callable[[Path], bool], follow_links: bool = False
) -> tuple[Path, list[tuple[str, str]]]:
    """The data folder and its annotation files with their splits; ``data`` may also be one annotation file.

    Args:
        split: the split of all files; "" takes it from their names.
        follow_links: follow links that point outside the folder.

    Raises:
        DataError: no such file in the folder, or see :func:`annotation_files`.
        FileNotFoundError: ``data`` does not exist.
    """
    if is_file(data):
        return data.parent, [(data.name, split)]
    if not is_dir(data):
        raise FileNotFoundError(f"{data}: no such file or folder")
    listed = list_files(data, follow_links, lambda file: _is_expected(PurePosixPath(without_archives(file)), suffix))
    files = annotation_files(data, listed, suffix, has_format)
    if not files:
        raise DataError(f"{data}: contains no {suffix} file of this format; pass the annotation file as the data")
    return data, [(file, split or own_split) for file, own_split in files]


def _is_expected(path: PurePosixPath, suffix: str) -> bool:
    """Whether a file with this suffix is where annotation files are searched."""
    folder, depth = path.parent.name, len(path.parts) - 1
    expected = depth == 0 or (depth == 1 and (folder.lower() in FOLDERS or bool(split_of(folder))))
    return path.suffix.lower() == suffix and expected


def split_in_name(stem: str) -> str:
    """The split that a file name such as ``val_boxes`` or ``train-export`` contains as a word; "" for none or two."""
    splits = {split_of(word) for word in re.split(r"[^a-zA-Z]+", stem)} - {""}
    return splits.pop() if len(splits) == 1 else ""


def summary_line(format_name: str, files: list[tuple[str, str]]) -> Detected | None:
    """Explained in one line, such as ``CVAT: annotations.xml (train)``; None if there are no files."""
    shown = [f"{file} ({split})" if split else file for file, split in files]
    more = ", ..." if len(shown) > 5 else ""
    return Detected(f"{format_name}: {', '.join(shown[:5])}{more}") if shown else None
