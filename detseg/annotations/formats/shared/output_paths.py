"""Choose the image paths of a table that is written in another format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.listing import IMAGE_FOLDERS, split_of
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def new_folder(folder: str | os.PathLike[str]) -> Path:
    """``folder``, created if needed.

    Raises:
        DataError: it is not empty: old annotations would be read together with the new ones.
        OSError: it cannot be created.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise DataError(f"{path}: the folder is not empty; choose a new one")
    return path


def image_names(table: AnnotationTable, format: str, *, drop_splits: bool = False) -> list[str]:
    """The path of each image below the image folder of ``format``, such that no two differ only in their suffix:
    they would share one annotation file.

    Folders that are only called "images" (and with ``drop_splits`` those that repeat the split) are left out where the
    names stay unique without them.

    Raises:
        DataError: images without an image file, class labels of whole images, or two images with the same name.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: {format} cannot store the classes of whole images; keep the folders")
    full = []
    for index, record in enumerate(table):
        name = str(table.media[index])
        path = PurePosixPath(f"{name}/{record.member}" if record.member else name)
        is_named = table.has_path(index) or (name and record.member)
        if not is_named or path.is_absolute() or ".." in path.parts:
            raise DataError(f"{table.source}: image {record.image_id} ({record.name}) is not an image file below "
                            f"{table.root}, as {format} requires; save it as one")  # fmt: skip
        full.append(path.as_posix())
    short = [_short(name, str(table.split[index]) if drop_splits else "") for index, name in enumerate(full)]
    folders = table.split.tolist() if drop_splits else [""] * len(table)  # each split has a separate folder
    for names in (short, full):
        duplicate = _first_duplicate([f"{split}/{name}" for split, name in zip(folders, names, strict=True)])
        if duplicate is None:
            return names
    first, second = (full[index] for index in duplicate or (0, 0))
    raise DataError(
        f"{table.source}: {first} and {second} differ only in their suffix, and {format} has one annotation file for "
        "both; rename one of the images"
    )


def _short(name: str, split: str) -> str:
    path = PurePosixPath(name)
    folders = [folder for folder in path.parts[:-1] if folder.lower() not in IMAGE_FOLDERS]
    return "/".join([*(folder for folder in folders if not split or split_of(folder) != split), path.name])


def _first_duplicate(names: Sequence[str]) -> tuple[int, int] | None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        first = seen.setdefault(str(PurePosixPath(name).with_suffix("")), index)
        if first != index:
            return first, index
    return None
