"""Formats with one annotation file an image: which file belongs to which image, by names only."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.image_files import first_few
from detseg.annotations.listing import IMAGE_FOLDERS, is_image, list_files
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

LABEL_FOLDERS = (
    "annotations", "annotation", "labels", "label", "labeltxt", "anns", "xml", "xmls", "txt", "txts", "bboxes", "boxes",
)  # fmt: skip
"""Usual names of folders that hold nothing but annotation files, in lower case."""


def pair_key(file: str) -> str:
    """What an image and its annotation file have in common: the path without suffix and without folders that only say
    what kind of file they hold (``train/images/a.jpg`` and ``train/labels/a.txt`` are ``train/a``)."""
    path = PurePosixPath(unicodedata.normalize("NFC", file))
    kinds = (*IMAGE_FOLDERS, *LABEL_FOLDERS)
    return "/".join([*(part for part in path.parts[:-1] if part.lower() not in kinds), path.stem])


def list_images(
    files: Sequence[str], data: Path, images: str | os.PathLike[str] | None, source: str
) -> tuple[Path, list[str]]:
    """The folder of the images, and all images in it, relative to it.

    Args:
        files: the annotation files, relative to ``data``.
        data: where to look, and if nothing there has a name that fits, in a folder of images beside it.
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
    files: Sequence[str], images: Sequence[str], source: str, notes: RepairLog, names: Sequence[str] = ()
) -> list[str]:
    """The image of each annotation file.

    First by place and name (:func:`pair_key`), then by the name without suffix wherever the image lies, then by the
    file name that the annotation itself gives; the last two are noted. Only listed images are ever the answer, so
    nothing else is opened, whatever the annotations say.

    Args:
        files: annotation files, relative to the data folder.
        images: all images, relative to theirs.
        source: what messages call the data set.
        names: the image's name inside each annotation file ("" for none); not needed.

    Raises:
        DataError: annotation files without image, or with several that fit, or two with the same image; with their
            number and the first five.
    """
    by_key: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for image in images:
        by_key.setdefault(pair_key(image), []).append(image)
        by_stem.setdefault(_stem(image), []).append(image)
        by_name.setdefault(_base(image), []).append(image)
    found: list[str] = []
    missing, several = [], []
    for file, name in zip(files, names or [""] * len(files), strict=True):
        named = _base(name)
        same = by_key.get(pair_key(file), [])
        if not same:
            same = by_stem.get(_stem(file), []) or by_name.get(named, [])
            if len(same) == 1:
                notes.add("image found by its name alone, in another folder than expected", f"{file}: {same[0]}")
        if len(same) > 1:
            same = [image for image in same if _base(image) == named] or same
        if len(same) > 1:
            same = [image for image in same if _folder(image) == _folder(file)] or same
        if len(same) == 1:
            found.append(same[0])
        elif same:
            several.append(f"{file} ({first_few(same)})")
        else:
            missing.append(file)
    if missing:
        raise DataError(
            f"{source}: {len(missing)} of {len(files)} annotation files have no image: {first_few(missing)}; add the "
            "images, remove these files, or pass the folder of the images with --images"
        )
    if several:
        raise DataError(
            f"{source}: {len(several)} of {len(files)} annotation files fit several images: {first_few(several)}; "
            "keep one image of each name"
        )
    _check_once(files, found, source)
    return found


def _check_once(files: Sequence[str], found: Sequence[str], source: str) -> None:
    first: dict[str, str] = {}
    for file, image in zip(files, found, strict=True):
        if image in first:
            raise DataError(
                f"{source}: the image {image} is annotated by {first[image]} and by {file}; keep one of them, or "
                "add the image of the other"
            )
        first[image] = file


def _base(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])


def _stem(file: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(file).stem)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]
