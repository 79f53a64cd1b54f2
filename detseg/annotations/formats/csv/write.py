"""Write a table as CSV: boxes or landmarks."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.output_paths import new_folder
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.formats.shared.writing import image_names, note_images, written_instances
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable, Record
from detseg.errors import DataError
from detseg.runtime.files import write_text

IMAGES = "images"
BOXES, LANDMARKS, CLASSES = "boxes.csv", "landmarks.csv", "classes.csv"


def write_csv_boxes(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write boxes.csv (filename, width, height, class, xmin, ymin, xmax, ymax, optionally split) and classes.csv.

    Coordinates are upright pixels in full precision; x + width may be rounded in its last digit. An image without
    boxes has one line with empty class and box cells.

    Raises:
        DataError: ``folder`` is not empty, or the table cannot be written (see ``image_names``).
    """
    corners = ["xmin", "ymin", "xmax", "ymax"]
    return _write(table, folder, BOXES, corners, lambda record, row: _corners(record.boxes_xywh[row]), ())


def write_csv_landmarks(table: AnnotationTable, folder: str | os.PathLike[str]) -> WriteResult:
    """Write landmarks.csv (as boxes.csv, with <name>_x, <name>_y, <name>_v for each keypoint) and classes.csv.

    Keypoints that are not labelled have empty cells. Spaces in their names become underscores.

    Raises:
        DataError: the table has no keypoints, or two with the same column name; else as :func:`write_csv_boxes`.
    """
    schema = table.keypoint_schema
    if schema is None:
        raise DataError(f"{table.source}: no keypoints to write; write the boxes instead")
    names = ["_".join(name.split()) for name in schema.names]
    if len({name.lower() for name in names}) < len(names):
        raise DataError(f"{table.source}: keypoints with the same column name ({', '.join(schema.names)}); rename them")
    columns = ["xmin", "ymin", "xmax", "ymax", *(f"{name}_{axis}" for name in names for axis in "xyv")]

    def cells(record: Record, row: int) -> list[str]:
        assert record.keypoints is not None
        texts = _corners(record.boxes_xywh[row])
        for x, y, visibility in record.keypoints[row].tolist():
            texts += [_number(x), _number(y), _number(visibility)] if visibility > 0 else ["", "", ""]
        return texts

    written = _write(table, folder, LANDMARKS, columns, cells, ("keypoints",))
    if schema.skeleton:
        written.notes.add("skeleton of the keypoints not written", ", ".join(names))
    return written


def _write(
    table: AnnotationTable,
    folder: str | os.PathLike[str],
    name: str,
    columns: Sequence[str],
    cells: Callable[[Record, int], list[str]],
    supported: Sequence[str],
) -> WriteResult:
    names = image_names(table, "CSV")
    root = new_folder(folder)
    notes = RepairLog()
    note_images(table, notes, ("splits", "class_ids"))
    has_split = bool((table.split != "").any())
    lines = [["filename", "width", "height", "class", *columns, *(["split"] if has_split else [])]]
    for image, record in zip(names, table, strict=True):
        height, width = record.size_hw
        start, end = [image, str(width), str(height)], [record.split] if has_split else []
        rows = [row for row, _ in written_instances(record, notes, supported)]
        for row in rows:
            label = table.class_map.name_of(int(record.labels[row]))
            lines.append([*start, label, *cells(record, row), *end])
        if not rows:
            lines.append([*start, *[""] * (len(columns) + 1), *end])
    classes = zip(table.class_map.names, map(str, table.class_map.category_ids), strict=True)
    write_text(root / name, _text(lines))
    if len(table.class_map):
        write_text(root / CLASSES, _text([list(pair) for pair in classes]))
    return WriteResult([f"{IMAGES}/{image}" for image in names], notes)


def _text(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _corners(box: npt.NDArray[np.float64]) -> list[str]:
    x, y, width, height = box.tolist()
    return [_number(value) for value in (x, y, x + width, y + height)]


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
