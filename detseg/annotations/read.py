"""The one entry to all readers: a path in, a table out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detseg.annotations.coco import read_coco
from detseg.annotations.image_folder import read_image_folder
from detseg.annotations.layout import find_format
from detseg.annotations.mask_folder import read_mask_folders, read_masks
from detseg.annotations.mask_layout import MASK_FOLDERS
from detseg.annotations.table import AnnotationTable, concatenate
from detseg.errors import DataError


def read(
    data: str | os.PathLike[str],
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    mask_values: str | None = None,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
) -> AnnotationTable:
    """Read a labelled data set of any format that is known.

    Args:
        data: a COCO .json file, or the folder of a data set.
        format: "coco", "masks" or "folders"; None finds it by looking (and a given ``mask_values`` says "masks").
        images: folder of the images if it is not where the data is; the only way to files outside ``data``.
        mask_values: "instance", "class" or "binary", see ``read_mask_folders``; None guesses, with a note.
        classes: takes only these classes, in this order; names the values of masks.
        bad_instances: "drop" counts and names instances that cannot be used, "error" refuses them.

    Raises:
        DataError: data that cannot be used; says what, where, and what to do.
        OSError: a file or folder is not there or cannot be opened.
    """
    if classes is not None and not classes:
        raise DataError("no class is named in classes; leave it out to take all")
    if mask_values is not None:
        if format not in (None, "masks"):
            raise DataError(
                f"mask values {mask_values} were given, but the format is {format}; leave one of the two out"
            )
        format = "masks"
    data = Path(data)
    if format == "masks" and images is not None:
        return _masks_elsewhere(data, Path(images), mask_values, classes, bad_instances)
    layout = find_format(data, format)
    if images is not None and layout.format != "coco":
        raise DataError(
            f"{data}: {layout.explanation}; the images of this format lie beside their annotations: leave --images "
            "out, or pass --format masks if the masks are in this folder"
        )
    if layout.format == "coco":
        tables = [
            read_coco(layout.root / name, images, split=split, bad_instances=bad_instances, classes=classes)
            for name, split in layout.annotation_files
        ]
        table = tables[0] if len(tables) == 1 else concatenate(tables)
    elif layout.format == "masks":
        table = read_mask_folders(
            layout.root, layout.mask_folders, values=mask_values, classes=classes, bad_instances=bad_instances
        )
    else:
        table = read_image_folder(layout.root, classes=classes)
    return replace(table, source=f"{data} ({layout.explanation})")


def _masks_elsewhere(
    data: Path, images: Path, values: str | None, classes: Sequence[str] | None, bad_instances: str
) -> AnnotationTable:
    """Masks in ``data`` (or in its folder of a usual name), images in a folder of the user's choice."""
    for folder in (images, data):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder")
    by_name = {folder.name.lower(): folder for folder in data.iterdir() if folder.is_dir()}
    masks = next((by_name[name] for name in MASK_FOLDERS if name in by_name), data)
    return read_masks(images, masks, values=values, classes=classes, bad_instances=bad_instances)
