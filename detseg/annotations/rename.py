"""Rename, merge and select the classes of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import INSTANCE_COLUMNS, AnnotationTable
from detseg.class_names import Rename, new_names
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError
from detseg.short_text import counted


def new_names_of(tables: Sequence[AnnotationTable], rename: Rename) -> dict[str, str]:
    """Old name -> new name of classes, each of which is in at least one of the tables.

    With label fields the names are those of the joined class map: ``colour=crimson`` becomes ``colour=red``. A name
    without a field means the classes of this name in all fields.

    Raises:
        DataError: a text that is not OLD=NEW, or an old name that no table has.
    """
    known = list(dict.fromkeys(name for table in tables for name in table.class_map.names))
    fields = list(dict.fromkeys(field.name for table in tables for field in table.label_fields))
    return _new_names(rename, known, fields, tables[0].source)


def rename_class_map(class_map: ClassMap, label_fields: Sequence[LabelField], rename: Rename, source: str) -> ClassMap:
    """The classes of a model under other names, with the same labels and ids.

    Raises:
        DataError: an old name that is not a class, or two classes with the same name: predictions are not merged.
    """
    mapping = _new_names(rename, class_map.names, [field.name for field in label_fields], source)
    names = tuple(mapping.get(name, name) for name in class_map.names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"--rename: two classes of {source} would have the name {twice!r}; predictions are not merged: give each "
            "class a name of its own, or train with --rename"
        )
    return ClassMap(names, class_map.category_ids)


def _new_names(rename: Rename, known: Sequence[str], fields: Sequence[str], source: str) -> dict[str, str]:
    field_of = {name: next((field for field in fields if name.startswith(f"{field}=")), "") for name in known}
    bare = dict.fromkeys(name.removeprefix(f"{field}=") for name, field in field_of.items() if field)
    mapping = {}
    for old, new in new_names(rename, [*known, *(bare if fields else ())], source).items():
        for name in [old] if old in known else [name for name in known if name == f"{field_of[name]}={old}"]:
            prefix = f"{field_of[name]}=" if field_of[name] else ""
            mapping[name] = prefix + new.removeprefix(prefix)
    return mapping


def rename_classes(tables: Sequence[AnnotationTable], mapping: Mapping[str, str]) -> list[AnnotationTable]:
    """The tables of one data set with other class names; classes that get the same name are merged, with a note.

    A merged class has the place and the category id of the first of them. Names that a table does not have are ignored.
    """
    ids: dict[str, int] = {}
    for table in tables:
        for name, number in zip(table.class_map.names, table.class_map.category_ids, strict=True):
            ids.setdefault(mapping.get(name, name), number)
    return [_renamed(table, mapping, ids) for table in tables]


def select_classes(table: AnnotationTable, names: Sequence[str]) -> AnnotationTable:
    """The table with these classes as labels 1, 2, ... in this order; what has another class is left out with a note.

    Images without an object remain; images with a class of their own that is not selected are left out.

    Raises:
        UnknownClassError: a name that the table does not have.
    """
    class_map = table.class_map.select(names, table.source)
    to_label = np.array([0, *(names.index(name) + 1 if name in names else 0 for name in table.class_map.names)])
    notes = _copied(table.notes)
    rows, counts = table.instance_rows(), table.instances_per_image()
    label = to_label[table.label[rows]].astype(np.int32)
    image = np.repeat(np.arange(len(table)), counts)
    for index in image[label == 0].tolist():
        notes.add("instance of an unselected class left out", str(table.media[index]))
    rows, image, label = rows[label > 0], image[label > 0], label[label > 0]
    stop = np.cumsum(np.bincount(image, minlength=len(table))).astype(np.int64)
    columns = {name: getattr(table, name)[rows] for name in INSTANCE_COLUMNS} | {"label": label}
    selected = replace(
        table,
        **columns,
        class_map=class_map,
        start=np.concatenate([[0], stop])[:-1].astype(np.int64),
        stop=stop,
        segmentation=table.segmentation.take(rows),
        keypoints=None if table.keypoints is None else table.keypoints[rows],
        class_index=_mapped(table.class_index, to_label),
        notes=notes,
    )
    lost = (table.class_index >= 0).any(axis=1) & (selected.class_index < 0).all(axis=1) & (counts == 0)
    for index in np.flatnonzero(lost).tolist():
        notes.add("image of an unselected class left out", str(table.media[index]))
    if lost.any():
        selected = selected.subset(np.flatnonzero(~lost))
    return replace(selected, record=np.arange(len(selected), dtype=np.int64))


def _renamed(table: AnnotationTable, mapping: Mapping[str, str], ids: Mapping[str, int]) -> AnnotationTable:
    names = table.class_map.names
    new = [mapping.get(name, name) for name in names]
    notes = _copied(table.notes)
    _note_merged(table, new, notes)
    unique = list(dict.fromkeys(new))
    to_label = np.array([0, *(unique.index(name) + 1 for name in new)])
    if not table.label_fields:
        class_map = ClassMap(tuple(unique), tuple(ids[name] for name in unique))
        label = to_label[table.label].astype(np.int32)
        return replace(
            table, class_map=class_map, label=label, class_index=_mapped(table.class_index, to_label), notes=notes
        )
    fields, index = [], table.class_index.copy()
    for column, field in enumerate(table.label_fields):
        prefix = f"{field.name}="
        of_field = [mapping.get(prefix + name, prefix + name).removeprefix(prefix) for name in field.class_map.names]
        class_map = ClassMap(tuple(dict.fromkeys(of_field)))
        fields.append(LabelField(field.name, class_map))
        index[:, column] = _mapped(
            table.class_index[:, column], np.array([0, *(class_map.label_of(name) for name in of_field)])
        )
    return replace(table, class_map=joined(fields), label_fields=tuple(fields), class_index=index, notes=notes)


def _note_merged(table: AnnotationTable, new: Sequence[str], notes: RepairLog) -> None:
    """Note each new name of several classes, with the number of their objects or images."""
    unit = "image" if table.has_class_index else "instance"
    labels = table.image_labels()[1] if table.has_class_index else table.label[table.instance_rows()]
    numbers = np.bincount(labels, minlength=len(new) + 1)[1:].tolist()
    for name in dict.fromkeys(new):
        old = [index for index, other in enumerate(new) if other == name]
        if len(old) > 1:
            parts = [f"{table.class_map.names[index]} ({counted(numbers[index], unit)})" for index in old]
            notes.add("new class name that merges classes", f"{name}: {', '.join(parts)}")


def _mapped(class_index: npt.NDArray[np.int64], to_label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Class indices, -1 for none, after their labels 1..K became ``to_label``."""
    return np.where(class_index >= 0, to_label[class_index + 1] - 1, -1).astype(np.int64)


def _copied(notes: RepairLog) -> RepairLog:
    copy = RepairLog()
    copy.merge(notes)
    return copy
