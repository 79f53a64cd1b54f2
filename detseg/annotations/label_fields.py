"""Convert tables with several label fields to the same fields and classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError

_INTEGER = re.compile(r"-?\d+")


def in_order(names: set[str]) -> list[str]:
    """Class names in the order of a class map: integers by value, otherwise alphabetically."""
    if all(map(_INTEGER.fullmatch, names)):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def with_fields(table: AnnotationTable, fields: Sequence[LabelField]) -> AnnotationTable:
    """Replace the label fields of ``table`` by ``fields``; columns and classes are matched by name.

    A field that the table does not have is -1 for all images.

    Raises:
        DataError: the table has a field or a class that is not in ``fields``.
    """
    target_fields = {field.name: field for field in fields}
    columns = {field.name: column for column, field in enumerate(table.label_fields)}
    unknown = [
        *(name for name in columns if name not in target_fields),
        *(
            f"{field.name}={name}"
            for field in table.label_fields
            if field.name in target_fields
            for name in field.class_map.names
            if name not in target_fields[field.name].class_map.names
        ),
    ]
    if unknown:
        raise DataError(
            f"{table.source}: {', '.join(unknown)} is not known; known are "
            f"{', '.join(f'{field.name} ({_class_list(field)})' for field in fields)}; choose columns with --classes, "
            "or rename classes with --rename COLUMN=OLD=NEW"
        )
    index = np.full((len(table), len(fields)), -1, np.int64)
    for column, field in enumerate(fields):
        if field.name in columns:
            old = columns[field.name]
            index[:, column] = _renumbered(
                table.class_index[:, old], table.label_fields[old].class_map, field.class_map
            )
    return replace(table, label_fields=tuple(fields), class_map=joined(fields), class_index=index)


def same_fields(tables: Sequence[AnnotationTable], notes: RepairLog) -> list[AnnotationTable]:
    """Convert all tables to the same label fields: the union of their fields, the classes of each matched by name.

    Raises:
        DataError: some tables have label fields and others none.
    """
    if all(table.label_fields == tables[0].label_fields for table in tables):
        return list(tables)
    without = next((table for table in tables if not table.label_fields), None)
    if without is not None:
        other = next(table for table in tables if table.label_fields)
        raise DataError(
            f"{other.source} has the label columns {', '.join(field.name for field in other.label_fields)}, "
            f"{without.source} has none of them; give both files the same columns"
        )
    classes: dict[str, list[str]] = {}
    for field in (field for table in tables for field in table.label_fields):
        names = classes.setdefault(field.name, list(field.class_map.names))
        if set(names) != set(field.class_map.names):
            classes[field.name] = in_order({*names, *field.class_map.names})
    fields = tuple(LabelField(name, ClassMap.from_names(names)) for name, names in classes.items())
    for table in tables:
        class_names = joined(table.label_fields).names
        missing = [name for name in joined(fields).names if name not in class_names]
        if missing:
            notes.add("class list completed from the other files", f"{table.source} lacks {', '.join(missing)}")
    return [with_fields(table, fields) for table in tables]


def _renumbered(index: npt.NDArray[np.int64], old: ClassMap, new: ClassMap) -> npt.NDArray[np.int64]:
    to_index = np.array([*(new.label_of(name) - 1 for name in old.names), -1], np.int64)  # -1 selects the last
    return to_index[index]


def _class_list(field: LabelField) -> str:
    return ", ".join(field.class_map.names)
