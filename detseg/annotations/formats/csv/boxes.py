"""Read CSV files of boxes: one line per box, or an image name and empty cells for an image without boxes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv, stated_column
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import ONLY_CLASS, ClassList, ShapeAnnotation, ShapeInstance, shapes_table
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.listing import split_of
from detseg.annotations.plausibility import check_corner_order
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import is_file

CLASS_FILES = ("classes.csv", "class_mapping.csv", "class_list.csv")
"""Class list next to the boxes, one line per class: name, number (keras-retinanet); defines the class order."""


@dataclass(frozen=True)
class Columns:
    """Column numbers; None where the file has no such column."""

    path: int
    label: int | None
    split: int | None
    size_hw: tuple[int, int] | None
    count: int


def find_csv_boxes(root: Path, files: list[str]) -> Detected | None:
    """One line that lists the CSV files of boxes (see ``csv_kind``) at the top, in annotations/, or in train/, val/,
    test/; None if there are none."""
    return summary_line("CSV boxes", annotation_files(root, files, ".csv", _is_boxes))


def read_csv_boxes(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read CSV files of boxes in pixels.

    With a header: the usual names in any order and case, such as ``filename, xmin, ymin, xmax, ymax, class`` (corners)
    or ``x, y, w, h`` (top-left corner and size); ``width`` and ``height`` next to corners are those of the image and
    are checked; a ``split`` column contains train, val or test. Without: ``path, x1, y1, x2, y2, class``. Corners are
    half-open: x2 - x1 is the width. Empty cells for box and class make a negative image. The classes of
    ``class_attribute`` are the texts in this column, sorted.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the CSV file. Splits are those in the split column, or in the names of files and folders.
    """
    base, files = locate_annotation_files(Path(data), split, ".csv", _is_boxes, follow_links)
    notes = RepairLog()
    annotations: list[ShapeAnnotation] = []
    for file, file_split in files:
        cells = read_csv(base / file, file)
        annotations.extend(_read_file(cells, file, file_split, split == "", class_attribute, notes))
    source = files[0][0] if len(files) == 1 else base.name
    table = shapes_table(
        annotations,
        base,
        images,
        source=source,
        notes=notes,
        class_list=None if class_attribute else read_class_list(base, [file for file, _ in files]),
        classes=classes,
        bad_instances=bad_instances,
        follow_links=follow_links,
        missing_images=missing_images,
    )
    _check_corners(annotations, table, source)
    return table


class BoxRows:
    """Images of one CSV file, in order of first appearance; each row is added to one of them."""

    def __init__(
        self, file: CsvFile, columns: Columns, folder: str, split: str, use_split_column: bool, notes: RepairLog
    ) -> None:
        self.file, self.columns, self.notes = file, columns, notes
        self._folder, self._file_split, self._use_split_column = folder, split, use_split_column
        self._images: dict[tuple[str, str], ShapeAnnotation] = {}

    @property
    def images(self) -> list[ShapeAnnotation]:
        return list(self._images.values())

    def image(self, line: int, cells: list[str]) -> ShapeAnnotation:
        """The image of a row; DataError if the number of cells is wrong, or the image name is empty."""
        where = self.file.where(line)
        if len(cells) < self.columns.count or any(cells[self.columns.count :]):
            raise DataError(
                f"{where}: {len(cells)} cells, expected {self.columns.count}; complete the line, or put quotes around "
                f"a cell that contains {self.file.delimiter!r}"
            )
        name = cells[self.columns.path]
        if not name:
            raise DataError(f"{where}: the image name is empty; fill the cell or remove the line")
        split = self._split(line, cells)
        size = self._size(line, cells)
        image = self._images.setdefault(
            (name, split), ShapeAnnotation(ImageReference(name, self._folder), f"{where}", size, split=split)
        )
        if size is not None and image.size_hw not in (None, size):
            raise DataError(
                f"{where}: {name} is {size[1]} x {size[0]} (width x height) here, but has a different size in "
                f"{image.where}; correct one of them"
            )
        image.size_hw = image.size_hw or size
        return image

    def label(self, cells: list[str]) -> str:
        return ONLY_CLASS if self.columns.label is None else cells[self.columns.label]

    def _split(self, line: int, cells: list[str]) -> str:
        if self.columns.split is None or not self._use_split_column or not cells[self.columns.split]:
            return self._file_split
        word = cells[self.columns.split]
        if not split_of(word):
            self.notes.add("split ignored: not train, val or test", f"{self.file.where(line)}: {word}")
        return split_of(word)

    def _size(self, line: int, cells: list[str]) -> tuple[int, int] | None:
        if self.columns.size_hw is None or not all(cells[column] for column in self.columns.size_hw):
            return None
        height, width = (self.file.number(cells[column], "image size", line) for column in self.columns.size_hw)
        if not (height.is_integer() and width.is_integer()):
            raise DataError(
                f"{self.file.where(line)}: image size {width:g} x {height:g} is not in whole pixels; correct it"
            )
        return int(height), int(width)


def read_columns(file: CsvFile, used: Sequence[int], class_attribute: str | None, notes: RepairLog) -> Columns:
    """The columns other than boxes and points (``used``); ignored columns are noted.

    Raises:
        DataError: no column of image paths, or none with the name ``class_attribute``.
    """
    header = file.header or []
    path = column_of(header, PATH_COLUMNS)
    if path is None:
        raise DataError(
            f"{file.name}: no column with image names; call it filename (the header is {', '.join(header)})"
        )
    split = column_of(header, SPLIT_COLUMNS)
    label = column_of(header, LABEL_COLUMNS)
    if class_attribute is not None:
        label = stated_column(file, class_attribute, {path, *used})
    size_hw = size_columns(header)
    read = {path, label, split, *used, *(size_hw or ())}
    for number, name in enumerate(header):
        if name and number not in read:
            notes.add("column ignored", f"{name} ({file.name})")
    if label is None:
        notes.add(
            f"file without a class column: every instance has the class {ONLY_CLASS!r}",
            f"{file.name} (--rename {ONLY_CLASS}=NAME renames it, --class-attribute COLUMN reads another column)",
        )
    return Columns(path, label, split, size_hw, len(header))


def read_class_list(base: Path, annotation_files: Sequence[str]) -> ClassList | None:
    """Read a class list such as classes.csv next to the annotation files or in the data folder; None without it.

    Raises:
        DataError: a line is not one name and one number.
    """
    folders = dict.fromkeys(["", *(file.rpartition("/")[0] for file in annotation_files)])
    names = [f"{folder}/{name}" if folder else name for folder in folders for name in CLASS_FILES]
    name = next((name for name in names if is_file(base / name)), None)
    if name is None:
        return None
    file = read_csv(base / name, name)
    ids: dict[int, str] = {}
    for line, cells in file.rows:
        if len(cells) != 2 or not cells[0] or not cells[1].isdecimal() or len(cells[1]) > 18:
            raise DataError(f"{file.where(line)}: expected class name and number, such as cell{file.delimiter}0")
        if int(cells[1]) in ids:
            raise DataError(
                f"{file.where(line)}: the number {cells[1]} is used for two classes; give each a different number"
            )
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


def _read_file(
    file: CsvFile, name: str, split: str, use_split_column: bool, class_attribute: str | None, notes: RepairLog
) -> list[ShapeAnnotation]:
    if file.header is None:
        if class_attribute is not None:
            stated_column(file, class_attribute, ())
        box = BoxColumns((1, 2, 3, 4), "xyxy")
        columns = Columns(0, 5, None, None, 6)
    else:
        header_box = box_columns(file.header)
        if header_box is None:
            raise DataError(
                f"{file.name}: no box columns in the header ({', '.join(canonical(file.header))}); call them "
                "xmin, ymin, xmax, ymax, or x, y, w, h"
            )
        box = header_box
        columns = read_columns(file, box.columns, class_attribute, notes)
    rows = BoxRows(file, columns, name.rpartition("/")[0], split, use_split_column, notes)
    problems = Problems()
    for line, cells in file.rows:
        with problems.collect():
            _add_row(rows, line, cells, box)
    problems.raise_all(file.name)
    return rows.images


def _add_row(rows: BoxRows, line: int, cells: list[str], box: BoxColumns) -> None:
    """Add the image and the box of a row, if it has one."""
    image, label = rows.image(line, cells), rows.label(cells)
    empty = not any(cells[column] for column in box.columns)
    if empty and (rows.columns.label is None or not label):
        return  # a negative image
    if empty:
        raise DataError(
            f"{rows.file.where(line)}: class {label!r} without a box; complete the box, or clear the class as well"
        )
    image.instances.append(ShapeInstance(label, rows.file.where(line), box_xywh(rows.file, line, cells, box)))


def _check_corners(annotations: Sequence[ShapeAnnotation], table: AnnotationTable, source: str) -> None:
    """See ``check_corner_order``."""
    sizes = {int(image_id) - 1: table[row].size_hw for row, image_id in enumerate(table.image_id)}
    placed = [(item, sizes[i]) for i, image in enumerate(annotations) if i in sizes for item in image.instances]
    check_corner_order(
        np.array([item.box_xywh for item, _ in placed], np.float64).reshape(-1, 4),
        np.array([size for _, size in placed], np.int64).reshape(-1, 2),
        [item.where for item, _ in placed],
        source,
        "name the columns x, y, w, h if they are, else write the smaller corner first",
    )
