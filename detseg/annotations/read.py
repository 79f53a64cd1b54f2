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
from detseg.annotations.groups import with_notes
from detseg.annotations.layout import find_format
from detseg.annotations.listing import WRITTEN
from detseg.annotations.missing_masks import with_complete_masks
from detseg.annotations.not_a_data_set import check_path
from detseg.annotations.rename import new_names_of, rename_classes, select_classes
from detseg.annotations.table import AnnotationTable
from detseg.class_names import (
    Names,
    Rename,
    UnknownClassError,
    class_names,
    names_with_commas,
    old_names,
    quoted,
    rename_pairs,
)
from detseg.errors import DataError
from detseg.media.files import is_dir
from detseg.runtime.missing_path import missing_path

CLASS_ATTRIBUTE_FORMATS = ("via", "cvat", "csv")
"""Formats in which a user may state what holds the class."""


def read(
    data: str | os.PathLike[str],
    *,
    val_annotations: str | os.PathLike[str] | None = None,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    mask_values: str | None = None,
    one_based: bool = False,
    classes: Names | None = None,
    rename: Rename | None = None,
    class_attribute: str | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
    without_mask: str | None = None,
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
        classes: read only these classes, in this order: a list, or a text with commas; also the names of mask values.
        rename: other names of classes, old -> new or a text such as ``object=bolt,M6=bolt``; classes with the same new
            name are merged, with a note. ``classes`` selects new names. With several label columns an old name is
            ``colour=crimson``, or ``crimson`` for all columns.
        class_attribute: VIA and CVAT: the attribute of an object that states its class; CSV: the column.
        bad_instances: "drop" drops instances that cannot be used and logs them, "error" raises.
        follow_links: follow links in the folders that point outside; else one that would be read is an error.
        without_mask: instances that have only a box where others have a mask: "box", "drop" or "keep", see
            :func:`~detseg.annotations.missing_masks.with_complete_masks`.
        missing_images: "error", or "drop" to leave images without a file out with a note, if at most half are missing.

    Raises:
        DataError: data that cannot be used; the message states what, where, and what to do.
        OSError: a file or folder does not exist or cannot be opened.
    """
    names = class_names(classes)
    if names is not None and not names:
        raise DataError("classes is an empty list; omit it to use all classes")
    twice = next((name for name in names or () if (names or []).count(name) > 1), None)
    if twice is not None:
        raise DataError(f"--classes lists {twice!r} twice; list it once (--rename OLD={quoted(twice)} merges classes)")
    if mask_values is not None:
        if format not in (None, "masks"):
            raise DataError(
                f"mask values {mask_values} were given, but the format is {format}; pass only one of the two"
            )
        format = "masks"
    if missing_images not in ("error", "drop"):
        raise DataError(f"missing_images is {missing_images!r}; choose error or drop")
    if images is not None and not is_dir(images):
        raise missing_path(images, "image folder")
    options = ReadOptions(
        images, mask_values, one_based, names, bad_instances, follow_links, class_attribute, missing_images
    )
    paths = [Path(data)] if val_annotations is None else [Path(data), Path(val_annotations)]
    layouts = [_layout(path, format, options) for path in paths]
    sources = list(zip(paths, layouts, strict=True))
    try:
        return with_complete_masks(_read(sources, options, rename), without_mask)
    except UnknownClassError as error:  # a name with a comma, which only the names of the classes tell
        names = names_with_commas(classes, error.available) if isinstance(classes, str) else None
        if names is None:
            raise
    return with_complete_masks(_read(sources, replace(options, classes=names), rename), without_mask)


def _read(sources: Sequence[tuple[Path, Layout]], options: ReadOptions, rename: Rename | None) -> AnnotationTable:
    """Read all sources, and rename their classes."""
    if rename is None:
        return _joined(_tables(sources, options), sources)
    names = options.classes
    try:
        tables = _tables(sources, replace(options, classes=None))
    except DataError:  # what cannot be read may be unselected: columns that are no classes, or other keypoints
        if names is None:
            raise
        mapping = {old: new for (old, new), *_ in rename_pairs(rename)}
        tables = _tables(sources, replace(options, classes=old_names(names, mapping)))
        return _joined(rename_classes(tables, new_names_of(tables, rename)), sources)
    mapping = new_names_of(tables, rename)
    if names is not None and tables[0].label_fields:  # names of columns are selected, too
        known = {name for table in tables for name in table.class_map.names}
        tables = _tables(sources, replace(options, classes=old_names(names, mapping, known)))
    table = _joined(rename_classes(tables, mapping), sources)
    return table if names is None or table.label_fields else select_classes(table, names)


def _tables(sources: Sequence[tuple[Path, Layout]], options: ReadOptions) -> list[AnnotationTable]:
    tables = []
    for path, layout in sources:
        table = replace(format_named(layout.format).read(layout, options), source=f"{path} ({layout.explanation})")
        tables.append(with_notes(table, WRITTEN, list(layout.written)) if layout.written else table)
    return tables


def _joined(tables: Sequence[AnnotationTable], sources: Sequence[tuple[Path, Layout]]) -> AnnotationTable:
    """The only table, or those of the training and the validation split."""
    if len(tables) == 1:
        return tables[0]
    splits = [
        replace(table, split=np.full(len(table), split, dtype=np.dtypes.StringDType()))
        for split, table in zip(("train", "val"), tables, strict=True)
    ]
    return concatenate(splits, by_name={layout.format for _, layout in sources} != {"coco"})


def _layout(data: Path, format: str | None, options: ReadOptions) -> Layout:
    """The format of the data, which must be one that the options are for."""
    if format == "masks" and options.images is not None:
        check_path(data)
        layout = Layout("masks", f"masks of the images in {options.images}", data)
    else:
        layout = find_format(data, format, options.follow_links)
    if options.one_based and layout.format != "voc":
        raise DataError(f"{data}: {layout.explanation}; only Pascal VOC may be one-based: omit --one-based")
    if options.class_attribute is not None and layout.format not in CLASS_ATTRIBUTE_FORMATS:
        raise DataError(
            f"{data}: {layout.explanation}; --class-attribute {options.class_attribute} is for VIA, CVAT and CSV, "
            "whose objects may have several attributes: omit it (--rename OLD=NEW gives classes other names)"
        )
    return layout
