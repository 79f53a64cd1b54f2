"""Read CSV files of class labels: one line per image, one column per label field."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detseg.annotations.formats.csv.columns import PATH_COLUMNS, SPLIT_COLUMNS, column_of, size_columns
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv, stated_column
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.label_rows import ONLY_COLUMN, LabelRow, labels_table
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def find_csv_labels(root: Path, files: list[str]) -> Detected | None:
    """One line that lists the CSV files of labels (see ``csv_kind``) at the top, in annotations/, or in train/, val/,
    test/; None if there are none."""
    return summary_line("CSV labels", annotation_files(root, files, ".csv", _is_labels))


def read_csv_labels(
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
    """Read CSV files of class labels: a column of image paths; every other column is a label field.

    ``path,label`` needs no header; several label columns do. A ``split`` column contains train, val or test. An empty
    cell is no label; an image without labels is left out with a note. Classes are the texts in the cells, sorted;
    whole numbers by value (1.0, as spreadsheets write it, is 1). If there are several columns, one with only 0 and 1
    has both as classes even if one does not occur: each class of Roboflow's ``_classes.csv`` is a separate field.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`, but:

    Args:
        classes: with one label column, the selected classes, in this order; with several, the selected columns
            (``colour``), or some classes of a column (``colour=red``). The rest is left out with a note.
        class_attribute: the only label column to read; the others are left out with a note.
        bad_instances: has no effect: there are no instances.
    """
    base, files = locate_annotation_files(Path(data), split, ".csv", _is_labels, follow_links)
    notes = RepairLog()
    rows: list[LabelRow] = []
    for file, file_split in files:
        table = read_csv(base / file, file)
        rows.extend(_read_file(table, file, file_split, split == "", class_attribute, notes))
    source = files[0][0] if len(files) == 1 else base.name
    return labels_table(
        rows,
        base,
        images,
        source=source,
        notes=notes,
        classes=classes,
        bad_instances=bad_instances,
        follow_links=follow_links,
        missing_images=missing_images,
    )


def _is_labels(path: Path) -> bool:
    return csv_kind(path) == "labels"


def label_columns(header: Sequence[str]) -> list[int]:
    """Numbers of the columns that are not path, split or size."""
    others = {column_of(header, PATH_COLUMNS), column_of(header, SPLIT_COLUMNS), *(size_columns(header) or ())}
    return [column for column in range(len(header)) if column not in others]


def _read_file(
    file: CsvFile, name: str, file_split: str, use_split_column: bool, class_attribute: str | None, notes: RepairLog
) -> list[LabelRow]:
    header = file.header or ["filename", ONLY_COLUMN]
    path, split = column_of(header, PATH_COLUMNS), column_of(header, SPLIT_COLUMNS)
    columns = label_columns(header)
    if path is None or not columns:
        raise DataError(
            f"{name}: an image column called filename and at least one label column are required; the header is "
            f"{', '.join(header)}"
        )
    duplicates = sorted({header[column] for column in columns if header.count(header[column]) > 1})
    if duplicates:
        raise DataError(f"{name}: two columns are called {duplicates[0]}; rename one")
    for column in size_columns(header) or ():
        notes.add("column ignored", f"{header[column]} ({name})")
    if class_attribute is not None:
        column = stated_column(file, class_attribute, {*range(len(header))} - {*columns})
        for other in columns:
            if other != column:
                notes.add("unselected label column left out", header[other])
        columns = [column]
    folder = name.rpartition("/")[0]
    rows = []
    for line, cells in file.rows:
        where = file.where(line)
        if len(cells) < len(header) or any(cells[len(header) :]):
            expected = "2 (path and label); several label columns need a header" if file.header is None else len(header)
            raise DataError(f"{where}: {len(cells)} cells, expected {expected}")
        if not cells[path]:
            raise DataError(f"{where}: the image name is empty; fill the cell or remove the line")
        row_split = file_split
        if split is not None and use_split_column and cells[split]:
            row_split = split_of(cells[split])
            if not row_split:
                notes.add("split ignored: not train, val or test", f"{where} {cells[split]}")
        labels = {header[column]: cells[column] for column in columns}
        for field, text in labels.items():
            if text.lower() == "nan":
                notes.add("cell nan read as no label", f"{where}, {field}")
                labels[field] = ""
        rows.append(LabelRow(ImageReference(cells[path], folder, row_split), where, row_split, labels))
    return rows
