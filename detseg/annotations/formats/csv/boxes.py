"""CSV lists of boxes to a table: one line a box, or an image's name and empty cells for an image without any."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.annotations.formats.csv.columns import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    BoxColumns,
    box_columns,
    canonical,
    column_of,
    size_columns,
)
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv
from detseg.annotations.formats.shared.annotation_files import annotation_files, files_of, summary
from detseg.annotations.formats.shared.image_lookup import Wanted
from detseg.annotations.formats.shared.shapes import ONLY_CLASS, ClassList, ShapeAnnotation, ShapeInstance, shapes_table
from detseg.annotations.image_files import first_few
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

CLASS_FILES = ("classes.csv", "class_mapping.csv", "class_list.csv")
"""Beside the boxes, one line a class: name, number (keras-retinanet); gives the classes their order."""


SWAPPED = 0.05
"""Share of boxes whose second corner is before the first, above which they are no corners."""


@dataclass(frozen=True)
class Columns:
    """Column numbers; None where the file has no such column."""

    path: int
    label: int | None
    split: int | None
    size_hw: tuple[int, int] | None
    count: int


def find_csv_boxes(root: Path, files: list[str]) -> str | None:
    """What is found, if the folder holds CSV files of boxes (see ``csv_kind``) at the top, in annotations/, or in
    train/, val/, test/."""
    return summary("CSV boxes", annotation_files(root, files, ".csv", _is_boxes))


def read_csv_boxes(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read CSV files of boxes in pixels.

    With a header: the usual names in any order and case, such as ``filename, xmin, ymin, xmax, ymax, class`` (corners)
    or ``x, y, w, h`` (top-left corner and size); ``width`` and ``height`` beside corners are the image's and are
    checked; a ``split`` column says train, val or test. Without: ``path, x1, y1, x2, y2, class``. Corners are
    half-open: x2 - x1 is the width. Empty cells in place of box and class make a negative image.

    Args:
        data: the folder, or the CSV file.
        images: folder of the images if they are not beside or below the file.
        classes: names that become labels 1, 2, ... in this order; instances of others are left out with a note.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says; "" lets the files' own column, names and folders say it.

    Raises:
        DataError: what cannot be used, with file, line and remedy.
        OSError: a file or folder is missing.
    """
    base, found = files_of(Path(data), split, ".csv", _is_boxes)
    notes = RepairLog()
    drawn: list[ShapeAnnotation] = []
    for file, part in found:
        drawn.extend(_read_file(read_csv(base / file, file), file, part, split == "", notes))
    listed = class_list(base, [file for file, _ in found])
    source = found[0][0] if len(found) == 1 else base.name
    return shapes_table(
        drawn, base, images, source=source, notes=notes, listed=listed, classes=classes, bad_instances=bad_instances
    )


class BoxRows:
    """The images of one CSV file, in order of first appearance; each row adds to one of them."""

    def __init__(
        self, file: CsvFile, columns: Columns, near: str, part: str, by_column: bool, notes: RepairLog
    ) -> None:
        self.file, self.columns, self.notes = file, columns, notes
        self._near, self._part, self._by_column = near, part, by_column
        self._images: dict[tuple[str, str], ShapeAnnotation] = {}

    @property
    def images(self) -> list[ShapeAnnotation]:
        return list(self._images.values())

    def image(self, line: int, cells: list[str]) -> ShapeAnnotation:
        """The image of a row; DataError if its cells are too few or too many, or it names no image."""
        where = self.file.where(line)
        if len(cells) < self.columns.count or any(cells[self.columns.count :]):
            raise DataError(
                f"{where}: {len(cells)} cells, expected {self.columns.count}; complete the line, or put quotes around "
                f"a cell that contains {self.file.delimiter!r}"
            )
        name = cells[self.columns.path]
        if not name:
            raise DataError(f"{where}: no image is named; fill the cell or remove the line")
        split = self._split(line, cells)
        size = self._size(line, cells)
        image = self._images.setdefault(
            (name, split), ShapeAnnotation(Wanted(name, self._near), f"{where}", size, split=split)
        )
        if size is not None and image.size_hw not in (None, size):
            raise DataError(
                f"{where}: {name} is {size[1]} x {size[0]} (width x height) here and of another size in {image.where}; "
                "correct one of them"
            )
        image.size_hw = image.size_hw or size
        return image

    def label(self, cells: list[str]) -> str:
        return ONLY_CLASS if self.columns.label is None else cells[self.columns.label]

    def _split(self, line: int, cells: list[str]) -> str:
        if self.columns.split is None or not self._by_column or not cells[self.columns.split]:
            return self._part
        word = cells[self.columns.split]
        if not split_of(word):
            self.notes.add("split that is not train, val or test not used", f"{self.file.where(line)}: {word}")
        return split_of(word)

    def _size(self, line: int, cells: list[str]) -> tuple[int, int] | None:
        if self.columns.size_hw is None or not all(cells[column] for column in self.columns.size_hw):
            return None
        height, width = (self.file.number(cells[column], "image size", line) for column in self.columns.size_hw)
        if not (height.is_integer() and width.is_integer()):
            raise DataError(f"{self.file.where(line)}: image size {width:g} x {height:g} is not whole; correct it")
        return int(height), int(width)


def read_columns(file: CsvFile, used: Sequence[int], notes: RepairLog) -> Columns:
    """The columns beside boxes and points (``used``); those that are not read are noted.

    Raises:
        DataError: no column of paths.
    """
    header = file.header or []
    path = column_of(header, PATH_COLUMNS)
    if path is None:
        raise DataError(
            f"{file.name}: no column names the images; call it filename (the header is {', '.join(header)})"
        )
    label = column_of(header, LABEL_COLUMNS)
    split = column_of(header, SPLIT_COLUMNS)
    size_hw = size_columns(header)
    known = {path, label, split, *used, *(size_hw or ())}
    for number, name in enumerate(header):
        if name and number not in known:
            notes.add("column not read", f"{name} ({file.name})")
    if label is None:
        notes.add(f"file without a class column: every instance is of the class {ONLY_CLASS!r}", file.name)
    return Columns(path, label, split, size_hw, len(header))


def class_list(base: Path, beside: Sequence[str]) -> ClassList | None:
    """The classes of a file such as classes.csv beside the annotation files or in the data folder; None without it.

    Raises:
        DataError: the file is not one name and one number a line.
    """
    folders = dict.fromkeys(["", *(file.rpartition("/")[0] for file in beside)])
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in CLASS_FILES]
    name = next((name for name in names if (base / name).is_file()), None)
    if name is None:
        return None
    file = read_csv(base / name, name)
    ids: dict[int, str] = {}
    for line, cells in file.rows:
        if len(cells) != 2 or not cells[0] or not cells[1].isdecimal() or len(cells[1]) > 18:
            raise DataError(f"{file.where(line)}: expected class name and number, such as cell{file.delimiter}0")
        if int(cells[1]) in ids:
            raise DataError(f"{file.where(line)}: the number {cells[1]} stands for two classes; give each its own")
        ids[int(cells[1])] = cells[0]
    return ClassList(tuple(ids[number] for number in sorted(ids)), tuple(sorted(ids)))


def box_xywh(file: CsvFile, line: int, cells: list[str], box: BoxColumns) -> tuple[float, float, float, float]:
    """The box of a row as x, y, width, height; DataError for a cell that is not a finite number."""
    names = file.header or ["path", "x1", "y1", "x2", "y2", "class"]
    a, b, c, d = (file.number(cells[column], names[column], line) for column in box.columns)
    if box.form == "xyxy":
        return a, b, c - a, d - b
    return (a - c / 2, b - d / 2, c, d) if box.form == "cxcywh" else (a, b, c, d)


def _is_boxes(path: Path) -> bool:
    return path.name.lower() not in CLASS_FILES and csv_kind(path) == "boxes"


def _read_file(file: CsvFile, name: str, part: str, by_column: bool, notes: RepairLog) -> list[ShapeAnnotation]:
    if file.header is None:
        box = BoxColumns((1, 2, 3, 4), "xyxy")
        columns = Columns(0, 5, None, None, 6)
    else:
        given = box_columns(file.header)
        if given is None:
            raise DataError(
                f"{file.name}: no columns of boxes in the header ({', '.join(canonical(file.header))}); call them "
                "xmin, ymin, xmax, ymax, or x, y, w, h"
            )
        box = given
        columns = read_columns(file, box.columns, notes)
    rows = BoxRows(file, columns, name.rpartition("/")[0], part, by_column, notes)
    swapped, total = [], 0
    for line, cells in file.rows:
        image = rows.image(line, cells)
        label = rows.label(cells)
        empty = not any(cells[column] for column in box.columns)
        if empty and (columns.label is None or not label):
            continue  # a negative image
        if empty:
            raise DataError(f"{file.where(line)}: class {label!r} without a box; complete it, or empty the class too")
        xywh = box_xywh(file, line, cells, box)
        image.instances.append(ShapeInstance(label, file.where(line), xywh))
        total += 1
        if min(xywh[2:]) < 0:
            swapped.append(str(line))
    if len(swapped) >= 5 and len(swapped) > SWAPPED * total:
        remedy = (
            "they look like x, y, width, height: name the columns x, y, w, h" if box.form == "xyxy" else "correct them"
        )
        raise DataError(
            f"{file.name}: {len(swapped)} of {total} boxes have a negative width or height (lines "
            f"{first_few(swapped)}); {remedy}"
        )
    return rows.images
