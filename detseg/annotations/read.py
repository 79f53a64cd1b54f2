"""Read a data set of any supported format: the common entry point of all readers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detseg.annotations.concatenate import concatenate
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.csv.boxes import read_csv_boxes
from detseg.annotations.formats.csv.labels import read_csv_labels
from detseg.annotations.formats.csv.landmarks import read_csv_landmarks
from detseg.annotations.formats.cvat.read import read_cvat
from detseg.annotations.formats.folders.read import read_image_folder
from detseg.annotations.formats.labelme.read import read_labelme
from detseg.annotations.formats.masks.layout import MASK_FOLDERS
from detseg.annotations.formats.masks.read import read_mask_folders, read_masks
from detseg.annotations.formats.via.read import read_via
from detseg.annotations.formats.voc.read import read_voc
from detseg.annotations.formats.yolo.read import read_yolo
from detseg.annotations.layout import Layout, find_format
from detseg.annotations.not_a_data_set import check_path
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.missing_path import missing_path

_READERS: dict[str, Callable[..., AnnotationTable]] = {
    "yolo": read_yolo,
    "cvat": read_cvat,
    "labelme": read_labelme,
    "via": read_via,
    "boxes": read_csv_boxes,
    "landmarks": read_csv_landmarks,
    "labels": read_csv_labels,
}


def read(
    data: str | os.PathLike[str],
    *,
    val_annotations: str | os.PathLike[str] | None = None,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    mask_values: str | None = None,
    one_based: bool = False,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
) -> AnnotationTable:
    """Read a labelled data set of any supported format.

    Args:
        data: an annotation file, or the folder of a data set.
        val_annotations: file or folder of the validation split; ``data`` is then the training split.
        format: one of ``layout.FORMATS``; None detects it ("masks" if ``mask_values`` is set).
        images: image folder if it is not in ``data``; required for images outside ``data``.
        mask_values: "instance", "class" or "binary", see ``read_mask_folders``; None detects it, with a note.
        one_based: Pascal VOC coordinates count pixels from 1.
        classes: read only these classes, in this order; also the names of mask values.
        bad_instances: "drop" drops instances that cannot be used and logs them, "error" raises.

    Raises:
        DataError: data that cannot be used; the message states what, where, and what to do.
        OSError: a file or folder does not exist or cannot be opened.
    """
    if classes is not None and not classes:
        raise DataError("classes is an empty list; omit it to use all classes")
    if mask_values is not None:
        if format not in (None, "masks"):
            raise DataError(
                f"mask values {mask_values} were given, but the format is {format}; pass only one of the two"
            )
        format = "masks"
    if images is not None and not Path(images).is_dir():
        raise missing_path(images, "image folder")
    if val_annotations is not None:
        tables, formats = [], set()
        for split, path in (("train", data), ("val", val_annotations)):
            layout = None if format == "masks" and images is not None else find_format(Path(path), format)
            table = _read(
                Path(path), layout, images, mask_values, one_based, classes=classes, bad_instances=bad_instances
            )
            splits = np.full(len(table), split, dtype=np.dtypes.StringDType())
            tables.append(replace(table, split=splits))
            formats.add("masks" if layout is None else layout.format)
        return concatenate(tables, by_name=formats != {"coco"})
    layout = None if format == "masks" and images is not None else find_format(Path(data), format)
    return _read(Path(data), layout, images, mask_values, one_based, classes=classes, bad_instances=bad_instances)


def _read(
    data: Path,
    layout: Layout | None,
    images: str | os.PathLike[str] | None,
    mask_values: str | None,
    one_based: bool,
    *,
    classes: Sequence[str] | None,
    bad_instances: str,
) -> AnnotationTable:
    """Read one data set; without a layout, images are in ``images`` and masks in ``data``."""
    if layout is None:
        assert images is not None
        return _masks_elsewhere(data, Path(images), mask_values, classes, bad_instances)
    if one_based and layout.format != "voc":
        raise DataError(f"{data}: {layout.explanation}; only Pascal VOC may be one-based: omit --one-based")
    if images is not None and layout.format in ("masks", "folders"):
        raise DataError(
            f"{data}: {layout.explanation}; in this format the images are next to their annotations: omit --images, "
            "or pass --format masks if the masks are in this folder"
        )
    source = layout.root / layout.file if layout.file else layout.root
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
    elif layout.format == "folders":
        table = read_image_folder(layout.root, classes=classes)
    elif layout.format == "voc":
        table = read_voc(source, images, one_based=one_based, classes=classes, bad_instances=bad_instances)
    else:
        reader = _READERS[layout.kind or layout.format]
        table = reader(source, images, classes=classes, bad_instances=bad_instances)
    return replace(table, source=f"{data} ({layout.explanation})")


def _masks_elsewhere(
    data: Path, images: Path, values: str | None, classes: Sequence[str] | None, bad_instances: str
) -> AnnotationTable:
    """Read masks in ``data`` (or in its subfolder with a usual name) and images in another folder."""
    check_path(data)
    if not data.is_dir():
        raise DataError(f"{data}: a file; the masks of --images {images} must be in a folder, pass that folder")
    by_name = {folder.name.lower(): folder for folder in data.iterdir() if folder.is_dir()}
    masks = next((by_name[name] for name in MASK_FOLDERS if name in by_name), data)
    return read_masks(images, masks, values=values, classes=classes, bad_instances=bad_instances)
