"""Formats with one annotation file a picture: which file belongs to which picture, by names only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.image_files import first_few
from detseg.annotations.listing import IMAGE_FOLDERS, is_image, list_files
from detseg.annotations.repair_log import Notes
from detseg.errors import DataError

LABEL_FOLDERS = (
    "annotations", "annotation", "labels", "label", "labeltxt", "anns", "xml", "xmls", "txt", "txts", "bboxes", "boxes",
)  # fmt: skip
"""Usual names of folders that hold nothing but annotation files, in lower case."""


def pair_key(file: str) -> str:
    """What a picture and its annotation file have in common: the path without suffix and without folders that only say
    what kind of file they hold (``train/images/a.jpg`` and ``train/labels/a.txt`` are ``train/a``)."""
    path = PurePosixPath(unicodedata.normalize("NFC", file))
    kinds = (*IMAGE_FOLDERS, *LABEL_FOLDERS)
    return "/".join([*(part for part in path.parts[:-1] if part.lower() not in kinds), path.stem])


def list_pictures(
    files: Sequence[str], data: Path, images: str | os.PathLike[str] | None, source: str
) -> tuple[Path, list[str]]:
    """The folder of the pictures, and all pictures in it, relative to it.

    Args:
        files: the annotation files, relative to ``data``.
        data: where to look, and if nothing there has a name that fits, in a folder of pictures beside it.
        images: the folder to look in instead.
        source: what messages call the data set.

    Raises:
        DataError: a link leads out of the folder.
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None:
        if not Path(images).is_dir():
            raise FileNotFoundError(f"{images}: no such image folder")
        return Path(images), [file for file in list_files(images) if is_image(file)]
    found = [file for file in list_files(data) if is_image(file)]
    wanted = {_stem(file) for file in files}
    if not wanted or any(_stem(file) in wanted for file in found):
        return data, found
    beside = data.resolve().parent
    for folder in sorted(beside.iterdir()):
        if folder.name.lower() in IMAGE_FOLDERS and folder.is_dir():
            others = [file for file in list_files(folder) if is_image(file)]
            if any(_stem(file) in wanted for file in others):
                return folder, others
    return data, found


def pair_files(
    files: Sequence[str], pictures: Sequence[str], source: str, notes: Notes, names: Sequence[str] = ()
) -> list[str]:
    """The picture of each annotation file.

    First by place and name (:func:`pair_key`), then by the name without suffix wherever the picture lies, then by the
    file name that the annotation itself gives; the last two are noted. Only listed pictures are ever the answer, so
    nothing else is opened, whatever the annotations say.

    Args:
        files: annotation files, relative to the data folder.
        pictures: all pictures, relative to theirs.
        source: what messages call the data set.
        names: the picture's name inside each annotation file ("" for none); not needed.

    Raises:
        DataError: annotation files without picture, or with several that fit, or two with the same picture; with their
            number and the first five.
    """
    by_key: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for picture in pictures:
        by_key.setdefault(pair_key(picture), []).append(picture)
        by_stem.setdefault(_stem(picture), []).append(picture)
        by_name.setdefault(_base(picture), []).append(picture)
    found: list[str] = []
    missing, several = [], []
    for file, name in zip(files, names or [""] * len(files), strict=True):
        named = _base(name)
        same = by_key.get(pair_key(file), [])
        if not same:
            same = by_stem.get(_stem(file), []) or by_name.get(named, [])
            if len(same) == 1:
                notes.add("picture found by its name alone, in another folder than expected", f"{file}: {same[0]}")
        if len(same) > 1:
            same = [picture for picture in same if _base(picture) == named] or same
        if len(same) > 1:
            same = [picture for picture in same if _folder(picture) == _folder(file)] or same
        if len(same) == 1:
            found.append(same[0])
        elif same:
            several.append(f"{file} ({first_few(same)})")
        else:
            missing.append(file)
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(files)} annotation files have no picture: {first_few(missing)}; add the "
            "pictures, remove these files, or pass the folder of the pictures with --images"
        )
    if several:
        raise DataError(
            f"{source}: {len(several)} of {len(files)} annotation files fit several pictures: {first_few(several)}; "
            "keep one picture of each name"
        )
    _check_once(files, found, source)
    return found


def _check_once(files: Sequence[str], found: Sequence[str], source: str) -> None:
    first: dict[str, str] = {}
    for file, picture in zip(files, found, strict=True):
        if picture in first:
            raise DataError(
                f"{source}: the picture {picture} is annotated by {first[picture]} and by {file}; keep one of them, or "
                "add the picture of the other"
            )
        first[picture] = file


def _base(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])


def _stem(file: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(file).stem)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]
