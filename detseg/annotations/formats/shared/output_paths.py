"""Where the images of a table go when it is written in another format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.listing import IMAGE_FOLDERS, split_of
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def new_folder(folder: str | os.PathLike[str]) -> Path:
    """``folder``, made if needed.

    Raises:
        DataError: something lies in it: old annotations would be read together with the new ones.
        OSError: it cannot be made.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()):
        raise DataError(f"{path}: the folder is not empty; give a new one")
    return path


def image_names(table: AnnotationTable, format: str, *, drop_splits: bool = False) -> list[str]:
    """The path of each image below the image folder of ``format``, such that no two have the same name but for the
    suffix: their annotation files would be one.

    Folders that only say "images" (and with ``drop_splits`` those that repeat the split) are left out where the names
    stay different without them.

    Raises:
        DataError: images without an image file, class labels of whole images, or two images of one name.
    """
    if table.has_class_index:
        raise DataError(f"{table.source}: {format} has no place for the classes of whole images; keep the folders")
    full = []
    for index, record in enumerate(table):
        name = str(table.media[index])
        path = PurePosixPath(f"{name}/{record.member}" if record.member else name)
        if not name or record.frame >= 0 or path.is_absolute() or ".." in path.parts:
            raise DataError(f"{table.source}: image {record.image_id} ({record.name}) is no image file below "
                            f"{table.root}, as {format} needs; save it as one")  # fmt: skip
        full.append(path.as_posix())
    short = [_short(name, str(table.split[index]) if drop_splits else "") for index, name in enumerate(full)]
    apart = table.split.tolist() if drop_splits else [""] * len(table)  # parts that lie in folders of their own
    for names in (short, full):
        twice = _two_of_one_name([f"{split}/{name}" for split, name in zip(apart, names, strict=True)])
        if twice is None:
            return names
    first, second = (full[index] for index in twice or (0, 0))
    raise DataError(
        f"{table.source}: {first} and {second} differ in their suffix only, and {format} has one annotation file for "
        "both; rename one of the images"
    )


def _short(name: str, split: str) -> str:
    path = PurePosixPath(name)
    folders = [part for part in path.parts[:-1] if part.lower() not in IMAGE_FOLDERS]
    return "/".join([*(part for part in folders if not split or split_of(part) != split), path.name])


def _two_of_one_name(names: Sequence[str]) -> tuple[int, int] | None:
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        first = seen.setdefault(str(PurePosixPath(name).with_suffix("")), index)
        if first != index:
            return first, index
    return None
