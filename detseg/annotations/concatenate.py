"""Concatenate several annotation tables into one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations.label_fields import same_fields
from detseg.annotations.lost_objects import LostObjects
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import SegmentationColumn
from detseg.annotations.table import IMAGE_COLUMNS, INSTANCE_COLUMNS, AnnotationTable
from detseg.annotations.text_ids import TextIds
from detseg.classes import ClassMap
from detseg.errors import DataError


def concatenate(tables: Sequence[AnnotationTable], *, by_name: bool = False) -> AnnotationTable:
    """Concatenate the images of several tables, in order; ``record`` is set to the row in the result.

    Classes that only some tables have are added, by ascending category id; label fields and their classes by name.
    If image ids occur in more than one table, all images are renumbered 1..I, with a note.

    Args:
        by_name: for formats without category ids: classes with equal names are the same class, and get the ids 1..K
            in the order of their names.

    Raises:
        DataError: a class has two category ids or an id has two classes, keypoint schemas differ, some tables have
            label fields and others have none, or there is no table.
    """
    if not tables:
        raise DataError("no tables to concatenate; pass at least one")
    notes = RepairLog()
    tables = same_fields(tables, notes)
    by_name = by_name or any(table.text_ids.categories for table in tables)  # numbered in each file
    if by_name and not tables[0].label_fields:
        names = sorted({name for table in tables for name in table.class_map.names})
        tables = [_numbered(table, names) for table in tables]
    tables = _same_classes(tables, notes)
    first = tables[0]
    for table in tables[1:]:
        if table.keypoint_schema != first.keypoint_schema:
            raise DataError(
                f"{table.source} and {first.source} have different keypoints; give both files the same keypoint names "
                "and skeleton"
            )
    roots = {os.path.abspath(table.root) for table in tables}  # noqa: PTH100  (resolve would follow links)
    root = first.root if len(roots) == 1 else Path(os.path.commonpath(roots))
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(table, name) for table in tables]) for name in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS)
    }
    if len(roots) > 1:
        media = [
            (table.root / str(name)).absolute().relative_to(root).as_posix() for table in tables for name in table.media
        ]
        columns["media"] = np.array(media, dtype=np.dtypes.StringDType())
        tables = [replace(table, lost=_relative_to(root, table)) for table in tables]
    offsets = np.cumsum([0, *(len(table.label) for table in tables)])
    columns["start"] = np.concatenate([table.start + offset for table, offset in zip(tables, offsets, strict=False)])
    columns["stop"] = np.concatenate([table.stop + offset for table, offset in zip(tables, offsets, strict=False)])
    columns["record"] = np.arange(len(columns["image_id"]))
    for table in tables:
        notes.merge(table.notes)
    images = {number: text for table in tables for number, text in table.text_ids.images.items()}
    if len(np.unique(columns["image_id"])) < len(columns["image_id"]):
        written = [table.text_ids.image(number) for table in tables for number in table.image_id.tolist()]
        images = {number: text for number, text in enumerate(written, 1) if isinstance(text, str)}
        columns["image_id"] = np.arange(1, len(columns["image_id"]) + 1)
        notes.add("image ids renumbered 1..n because files share ids", ", ".join(table.source for table in tables))
    return replace(
        first,
        **columns,
        root=root,
        segmentation=SegmentationColumn.concatenate([table.segmentation for table in tables]),
        keypoints=None if first.keypoints is None else np.concatenate([table.keypoints for table in tables]),
        source=", ".join(table.source for table in tables),
        text_ids=TextIds(images, {n: text for table in tables for n, text in table.text_ids.categories.items()}),
        notes=notes,
        lost=LostObjects.sum_of(table.lost for table in tables),
    )


def _relative_to(root: Path, table: AnnotationTable) -> LostObjects:
    names = ((table.root / name).absolute().relative_to(root).as_posix() for name in table.lost.left_out)
    return replace(table.lost, left_out=tuple(names))


def _numbered(table: AnnotationTable, names: list[str]) -> AnnotationTable:
    """``table`` with the positions in ``names``, from 1, as category ids."""
    old, new = table.class_map, [names.index(name) + 1 for name in table.class_map.names]
    texts = table.text_ids.categories
    categories = {n: texts[number] for n, number in zip(new, old.category_ids, strict=True) if number in texts}
    return replace(
        table, class_map=ClassMap(old.names, tuple(new)), text_ids=TextIds(table.text_ids.images, categories)
    )


def _same_classes(tables: Sequence[AnnotationTable], notes: RepairLog) -> list[AnnotationTable]:
    """Convert all tables to one class map: the first if all are equal, else all classes by category id."""
    if all(table.class_map == tables[0].class_map for table in tables):
        return list(tables)
    name_of: dict[int, str] = {}
    id_of: dict[str, int] = {}
    for table in tables:
        for number, name in zip(table.class_map.category_ids, table.class_map.names, strict=True):
            if name_of.setdefault(number, name) != name or id_of.setdefault(name, number) != number:
                raise DataError(
                    f"{table.source} has the class {name!r} as category {number}, another file of this data set has "
                    f"{name_of[number]!r} as category {number}"
                    + (f" and {name!r} as category {id_of[name]}" if id_of.get(name, number) != number else "")
                    + "; give every class the same id in all files"
                )
    ids = tuple(sorted(name_of))
    class_map = ClassMap(tuple(name_of[number] for number in ids), ids)
    label_of = class_map.labels_by_category_id()
    renumbered = []
    for table in tables:
        missing = [name for name in class_map.names if name not in table.class_map.names]
        if missing:
            notes.add("class list completed from the other files", f"{table.source} lacks {', '.join(missing)}")
        to_label = np.array([0, *(label_of[number] for number in table.class_map.category_ids)], np.int32)
        index = np.where(table.class_index >= 0, to_label[table.class_index + 1].astype(np.int64) - 1, -1)
        renumbered.append(replace(table, class_map=class_map, label=to_label[table.label], class_index=index))
    return renumbered
