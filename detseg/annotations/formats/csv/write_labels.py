"""Write the class labels of a table as a CSV file."""

from __future__ import annotations

import csv
import io
import os

import numpy as np

from detseg.annotations.formats.csv.labels import ONLY_COLUMN, label_columns
from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.groups import file_name, first_names
from detseg.annotations.label_fields import in_order
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.files import write_text


def write_csv_labels(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write ``labels.csv``: filename, split if the table has any, and a column for each label field.

    Raises:
        DataError: the images have no labels, an image is not a separate file, or a field has the name of another
            column.
    """
    if not table.has_class_index:
        raise DataError(f"{table.source}: its images have no class labels; write its instances in another format")
    embedded = [row for row in range(len(table)) if not table.has_path(row)]
    if embedded:
        raise DataError(
            f"{table.source}: {table[embedded[0]].name or 'an image'} is not a separate file; extract it first"
        )
    notes = RepairLog()
    names = [field.name or ONLY_COLUMN for field in table.fields]
    has_split = bool((table.split != "").any())
    header = ["filename", *(["split"] if has_split else []), *names]
    if [header[column] for column in label_columns(header)] != names:
        raise DataError(
            f"{table.source}: label fields {', '.join(names)}: one has a reserved column name, such as split; rename it"
        )
    images = [f"images/{name}" for name in table.media.tolist()]
    lines = []
    for row, image in enumerate(images):
        labels = [
            field.class_map.names[index] if index >= 0 else ""
            for field, index in zip(table.fields, table.class_index[row].tolist(), strict=True)
        ]
        lines.append([image, *([str(table.split[row])] if has_split else []), *labels])
    _note_losses(table, notes)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    write_text(new_folder(folder) / "labels.csv", text.getvalue())
    return WriteResult(images, notes)


def _note_losses(table: AnnotationTable, notes: RepairLog) -> None:
    for row in np.flatnonzero(table.instances_per_image() > 0):
        notes.add("objects of an image not written", file_name(table, int(row)))
    for row in np.flatnonzero(table.group != ""):
        notes.add("group of an image not written", file_name(table, int(row)))
    used = set(table.image_labels()[1].tolist())
    for label, name in enumerate(table.class_map.names, start=1):
        if label not in used:
            notes.add("class without an image not written", name)
    for field in table.fields:
        if in_order(set(field.class_map.names)) != list(field.class_map.names):
            notes.add("order of the classes not written", first_names(list(field.class_map.names)))
