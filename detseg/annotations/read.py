"""Read a data set of any supported format: the common entry point of all readers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detseg.annotations.concatenate import concatenate
from detseg.annotations.formats.all_formats import format_named
from detseg.annotations.formats.format import Layout, ReadOptions
from detseg.annotations.layout import find_format
from detseg.annotations.not_a_data_set import check_path
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.missing_path import missing_path


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
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read a labelled data set of any supported format.

    Args:
        data: an annotation file, or the folder of a data set.
        val_annotations: file or folder of the validation split; ``data`` is then the training split.
        format: name of one of ``all_formats.FORMATS``; None detects it ("masks" if ``mask_values`` is set).
        images: image folder if it is not in ``data``; required for images outside ``data``.
        mask_values: "instance", "class", "binary" or "regions", see ``read_mask_folders``; None detects it, with a
            note.
        one_based: Pascal VOC coordinates count pixels from 1.
        classes: read only these classes, in this order; also the names of mask values.
        bad_instances: "drop" drops instances that cannot be used and logs them, "error" raises.
        follow_links: follow links in the folders that point outside; else one that would be read is an error.
        missing_images: "error", or "drop" to leave images without a file out with a note, if at most half are missing.

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
    if missing_images not in ("error", "drop"):
        raise DataError(f"missing_images is {missing_images!r}; choose error or drop")
    if images is not None and not Path(images).is_dir():
        raise missing_path(images, "image folder")
    options = ReadOptions(images, mask_values, one_based, classes, bad_instances, follow_links, missing_images)
    if val_annotations is None:
        return _read(Path(data), format, options)[1]
    tables, formats = [], set()
    for split, path in (("train", data), ("val", val_annotations)):
        layout, table = _read(Path(path), format, options)
        tables.append(replace(table, split=np.full(len(table), split, dtype=np.dtypes.StringDType())))
        formats.add(layout.format)
    return concatenate(tables, by_name=formats != {"coco"})


def _read(data: Path, format: str | None, options: ReadOptions) -> tuple[Layout, AnnotationTable]:
    """Read one data set."""
    if format == "masks" and options.images is not None:
        check_path(data)
        layout = Layout("masks", f"masks of the images in {options.images}", data)
    else:
        layout = find_format(data, format, options.follow_links)
    if options.one_based and layout.format != "voc":
        raise DataError(f"{data}: {layout.explanation}; only Pascal VOC may be one-based: omit --one-based")
    table = format_named(layout.format).read(layout, options)
    return layout, replace(table, source=f"{data} ({layout.explanation})")
