"""Read the classes of whole images from VIA's file attributes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.via.class_attribute import (
    CLASS_ATTRIBUTES,
    choose_attribute,
    class_of,
    is_class,
    values_of,
)
from detseg.annotations.image_files import read_headers
from detseg.annotations.image_lookup import ImageReference, look_up_images
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError


@dataclass(frozen=True)
class LabelledImage:
    """One image without regions: its file, the position in messages, its split, and its file attributes."""

    image: ImageReference
    where: str
    split: str
    attributes: dict[str, Any]


def image_attribute(images: Sequence[LabelledImage], stated: str | None, source: str, notes: RepairLog) -> str | None:
    """The file attribute that holds the class of images without regions: the stated one, or a usual name with at least
    two values; None if there is none. Another one that has several values is named in a note."""
    values = [image.attributes for image in images]
    if stated is not None:
        return choose_attribute(values, {}, stated, source, notes, "file")
    names = dict.fromkeys(name for attributes in values for name in attributes)
    texts = {
        name: {text for value in values for text in values_of(value.get(name)) if is_class(text)} for name in names
    }
    different = [name for name in names if len(texts[name]) > 1]
    usual = [name for name in different if name.lower() in CLASS_ATTRIBUTES]
    if usual:
        kept = [{name: value for name, value in attributes.items() if name in usual} for attributes in values]
        return choose_attribute(kept, {}, None, source, notes, "file")
    if different:
        notes.add(
            "images without regions, whose file attributes are not read",
            f"{source}: {', '.join(different)} (--class-attribute {different[0]} reads it as the class of images)",
        )
    return None


def image_classes_table(
    images: Sequence[LabelledImage],
    attribute: str,
    base: Path,
    folder: str | os.PathLike[str] | None,
    *,
    source: str,
    notes: RepairLog,
    classes: Sequence[str] | None,
    follow_links: bool,
    missing_images: str,
) -> AnnotationTable:
    """The table of images with one class each; images without one are left out with a note."""
    references = [image.image for image in images]
    root, names = look_up_images(references, base, folder, source, notes, follow_links, missing_images)
    labels = [class_of(image.attributes, attribute, image.where, notes) for image in images]
    class_map = ClassMap.from_names(sorted(set(labels) - {""})).select(classes, source)
    rows = []
    for row, label in enumerate(labels):
        if not names[row]:  # without a file, noted
            continue
        if label in class_map.names:
            rows.append(row)
        else:
            kind = "image of an unselected class left out" if label else "image without a label left out"
            notes.add(kind, images[row].where)
    last = {(names[row], images[row].split): row for row in rows}
    twice = next((names[row] for row in rows if last[names[row], images[row].split] != row), None)
    if twice is not None:
        raise DataError(f"{source}: the image {twice} has two entries; keep one of them, or correct the image names")
    headers = read_headers(root, [names[row] for row in rows], source)
    builder = TableBuilder(class_map, root, source=source)
    builder.notes.merge(notes)
    for row, header in zip(rows, headers, strict=True):
        builder.add_image(
            names[row],
            header.size_hw,
            orientation=header.orientation,
            split=images[row].split,
            class_index=class_map.names.index(labels[row]),
        )
    return builder.build()
