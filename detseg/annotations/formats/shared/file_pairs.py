"""Match annotation files to images by name, for formats with one annotation file per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from detseg.annotations.image_files import first_few
from detseg.annotations.image_lookup import MISSING, ImageLookup, ImageReference, check_missing
from detseg.annotations.image_names import normalized
from detseg.annotations.listing import IMAGE_FOLDERS, folder_word, links_hint
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.media.files import is_dir, iterdir

LABEL_FOLDERS = (
    "annotations", "annotation", "labels", "label", "labeltxt", "anns", "xml", "xmls", "txt", "txts", "bboxes", "boxes",
)  # fmt: skip
"""Usual names of folders that hold only annotation files, in lower case."""


def pair_key(file: str) -> str:
    """The key shared by an image and its annotation file: the path without suffix and without folder names that only
    state the kind of file (``train/images/a.jpg`` and ``train/labels/a.txt`` both become ``train/a``)."""
    path = PurePosixPath(normalized(file))
    ignored = (*IMAGE_FOLDERS, *LABEL_FOLDERS)
    return "/".join([*(folder for folder in path.parts[:-1] if folder_word(folder) not in ignored), path.stem])


def image_folder(
    files: Sequence[str], data: Path, images: str | os.PathLike[str] | None, follow_links: bool = False
) -> ImageLookup:
    """The lookup in the image folder.

    Args:
        files: the annotation files, relative to ``data``.
        data: the folder to search; if no image name in it matches, the image folders next to it are searched.
        images: the folder to search instead.
        follow_links: search behind links that point outside the folder.

    Raises:
        FileNotFoundError: ``images`` is not a folder.
    """
    if images is not None:
        if not is_dir(images):
            raise FileNotFoundError(f"{images}: no such image folder")
        return ImageLookup(Path(images), follow_links)
    inside = ImageLookup(data, follow_links)
    stems = {_stem(file) for file in files}
    if not stems or any(_stem(file) in stems for file in inside.files):
        return inside
    parent = data.resolve().parent
    for folder in sorted(iterdir(parent)):
        if folder_word(folder.name) in IMAGE_FOLDERS and is_dir(folder):
            other = ImageLookup(folder, follow_links)
            if any(_stem(file) in stems for file in other.files):
                return other
    return inside


def pair_files(
    files: Sequence[str],
    lookup: ImageLookup,
    images: str | os.PathLike[str] | None,
    source: str,
    notes: RepairLog,
    names: Sequence[str] = (),
    missing_images: str = "error",
) -> list[str]:
    """The image of each annotation file; "" for one that is left out.

    Matched first by folder and name (:func:`pair_key`), then by the name without suffix in any folder, then as
    :class:`ImageLookup` does, by the image name written in the annotation or by the name of the annotation file; all
    but the first are noted. Only listed images are returned, so no other file is opened, whatever the annotations
    contain.

    Args:
        files: annotation files, relative to the data folder.
        lookup: the image folder.
        images: the image folder that the user passed, for messages.
        source: name of the data set in messages.
        names: the image's name inside each annotation file ("" for none); optional.
        missing_images: "error", or "drop" to leave annotation files without image out with a note.

    Raises:
        DataError: annotation files without image, or with several matching images, or two with the same image; with
            their number and the first five.
    """
    by_key: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for image in lookup.files:
        by_key.setdefault(pair_key(image), []).append(image)
        by_stem.setdefault(_stem(image), []).append(image)
    paired: list[str] = []
    missing, ambiguous = [], []
    for file, name in zip(files, names or [""] * len(files), strict=True):
        stated_name = _file_name(name)
        matches = by_key.get(pair_key(file), [])
        if not matches:
            matches = by_stem.get(_stem(file), [])
            reason = "image found by its name alone, in an unexpected folder"
            if not matches:
                matches, other = _similar(file, name, lookup)
                reason = other or reason
            if len(matches) == 1:
                notes.add(reason, f"{file}: {matches[0]}")
        if len(matches) > 1:
            matches = [image for image in matches if _file_name(image) == stated_name] or matches
        if len(matches) > 1:
            matches = [image for image in matches if _folder(image) == _folder(file)] or matches
        if len(matches) == 1:
            paired.append(matches[0])
        elif matches:
            ambiguous.append(f"{file} ({first_few(matches)})")
        else:
            missing.append(file)
            paired.append("")
    if missing:
        text = (
            f"{source}: {len(missing)} of {len(files)} annotation files have no image: {first_few(missing)}"
            f"{links_hint(lookup.links)}; add the images, or remove these files"
        )
        check_missing(len(missing), len(files), text, images, missing_images)
        for file in missing:
            notes.add(MISSING, file)
    if ambiguous:
        raise DataError(
            f"{source}: {len(ambiguous)} of {len(files)} annotation files match several images: "
            f"{first_few(ambiguous)}; keep one image of each name"
        )
    _check_unique(files, paired, source)
    return paired


def _similar(file: str, name: str, lookup: ImageLookup) -> tuple[list[str], str]:
    """The image with the name written in the annotation, else the one whose name is similar to the file's."""
    for similar in (name, str(PurePosixPath(file).with_suffix(""))):
        matches, reason = lookup.find(ImageReference(similar)) if similar else ([], "")
        if matches:
            return matches, reason
    return [], ""


def _check_unique(files: Sequence[str], images: Sequence[str], source: str) -> None:
    """DataError if one image has two annotation files."""
    first: dict[str, str] = {}
    for file, image in zip(files, images, strict=True):
        if image and image in first:
            raise DataError(
                f"{source}: the image {image} is annotated in {first[image]} and in {file}; keep one of them, or "
                "add the image of the other"
            )
        first[image] = file


def _file_name(name: str) -> str:
    return normalized(name.replace("\\", "/").rpartition("/")[2])


def _stem(file: str) -> str:
    return normalized(PurePosixPath(file).stem)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]
