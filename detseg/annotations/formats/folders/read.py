"""Read image folders: one folder per class, in one tree or below train, val and test."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.format import Detected, Layout, ReadOptions, refused_images
from detseg.annotations.groups import first_names
from detseg.annotations.image_files import read_headers
from detseg.annotations.listing import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    folder_title,
    is_image,
    list_files,
    split_of,
    subfolders,
)
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.class_names import unknown_class
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.media.files import has_container_suffix, is_dir, iterdir


def split_folders(files: list[str]) -> dict[str, str]:
    """Folder -> "train", "val" or "test", if all folders with images have the name of a split; else empty.

    All of them, because "train" may also be a class next to "bus".
    """
    folders = [name for name, inner in subfolders(files).items() if name and any(map(is_image, inner))]
    splits = {name: split_of(name) for name in folders}
    return splits if all(splits.values()) else {}


def class_folders(files: list[str]) -> list[str]:
    """The classes that :func:`read_image_folder` would find in these files, sorted; empty if there are none."""
    return sorted({name for _, name, _ in _images_by_class(files, RepairLog())})


def find_class_folders(root: Path, files: list[str]) -> Detected | None:
    """The class folders, with or without folders of splits; ``only_if_named`` if they only look like classes: a single
    folder of images, images/ and masks/ that do not match, and folders next to many images without a folder."""
    classes = class_folders(files)
    if not classes:
        return None
    splits = sorted(set(split_folders(files).values()))
    below = f" in {', '.join(splits)}" if splits else ""
    without_folder = sum(is_image(file) for file in files if "/" not in file)
    generic_names = {name.lower() for name in classes} <= {*IMAGE_FOLDERS, *MASK_FOLDERS}
    certain = len(classes) > 1 and not generic_names and 2 * without_folder < sum(map(is_image, files))
    return Detected(f"image folder: {len(classes)} classes{below} ({first_names(classes)})", only_if_named=not certain)


def read_class_folders(layout: Layout, options: ReadOptions) -> AnnotationTable:
    """See :func:`read_image_folder`."""
    if options.images is not None:
        raise DataError(refused_images(layout))
    return read_image_folder(layout.root, classes=options.classes, follow_links=options.follow_links)


def read_image_folder(
    root: str | os.PathLike[str], *, classes: Sequence[str] | None = None, follow_links: bool = False
) -> AnnotationTable:
    """Read a folder with one subfolder per class, or with train, val, test folders that contain such subfolders.

    A class folder may have subfolders. ``class_index`` follows the sorted class names.

    Args:
        root: the folder.
        classes: only these classes are read, in this order.
        follow_links: follow links that point outside ``root``.

    Raises:
        DataError: no class folder, an unknown name in ``classes``, an image that cannot be read, or a link that points
            outside ``root``.
        OSError: the folder cannot be read.
    """
    root = Path(root)
    notes = RepairLog()
    files = list_files(root, follow_links, is_image)
    images = _images_by_class(files, notes)
    names = sorted({name for _, name, _ in images})
    if not names:
        raise DataError(f"{root}: no images in class folders; expected {root.name}/<class>/<image>")
    _note_empty(root, split_folders(files), names, notes)
    if classes is not None:
        unknown = [name for name in classes if name not in names]
        if unknown:
            raise unknown_class(f"{root}: no class folder {', '.join(unknown)}; there are ", unknown, names)
        for _, name, file in images:
            if name not in classes:
                notes.add("image of an unselected class left out", file)
        images = [entry for entry in images if entry[1] in classes]
        names = list(classes)
    headers = read_headers(root, [file for _, _, file in images], root.name)
    builder = TableBuilder(ClassMap.from_names(names), root, source=str(root))
    builder.notes.merge(notes)
    for (split, name, file), header in zip(images, headers, strict=True):
        builder.add_image(
            file, header.size_hw, orientation=header.orientation, split=split, class_index=names.index(name)
        )
    return builder.build()


def _images_by_class(files: list[str], notes: RepairLog) -> list[tuple[str, str, str]]:
    """(split, class, file) of every image in a class folder; all other files are noted."""
    splits = split_folders(files)
    images = []
    for folder, inner in subfolders(files).items():
        split = splits.get(folder, "")
        for rest in inner:
            file = f"{folder}/{rest}" if folder else rest
            name = rest.rpartition("/")[0].partition("/")[0] if split else folder
            if not is_image(file):
                notes.add("file that is not an image left out", file)
            elif not name:
                notes.add("image outside any class folder left out", file)
            else:
                images.append((split, folder_title(name), file))
    return images


def _note_empty(root: Path, splits: dict[str, str], names: list[str], notes: RepairLog) -> None:
    """Note folders without images, which would look like classes; they do not become classes."""
    for parent in [root / folder for folder in splits] or [root]:
        for folder in sorted(iterdir(parent)):
            if (
                is_dir(folder)
                and not has_container_suffix(folder.name)
                and not folder.name.startswith(".")
                and folder.name not in names
            ):
                notes.add("folder without images not used as a class", folder.relative_to(root).as_posix())
