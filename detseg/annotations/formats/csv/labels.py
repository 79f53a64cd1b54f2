"""Read CSV files of class labels: one line per image, one column per label field."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.csv.columns import PATH_COLUMNS, SPLIT_COLUMNS, column_of, size_columns
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.image_files import read_headers
from detseg.annotations.image_lookup import ImageReference, look_up_images
from detseg.annotations.label_fields import in_order
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError

ONLY_COLUMN = "label"
"""Name of the label column, in messages and when written, if there is only one."""

NAMES_FROM = 20
"""From this many labelled images, a column with a different text in every cell is a name, number or remark."""

_WHOLE = re.compile(r"-?\d+(\.0+)?")


@dataclass(frozen=True)
class _Row:
    """One line: its image, its split, and the text of each label column ("" for none)."""

    image: ImageReference
    where: str
    split: str
    labels: dict[str, str]


def find_csv_labels(root: Path, files: list[str]) -> Detected | None:
    """One line that lists the CSV files of labels (see ``csv_kind``) at the top, in annotations/, or in train/, val/,
    test/; None if there are none."""
    return summary_line("CSV labels", annotation_files(root, files, ".csv", _is_labels))


def read_csv_labels(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
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
        bad_instances: has no effect: there are no instances.
    """
    base, files = locate_annotation_files(Path(data), split, ".csv", _is_labels, follow_links)
    notes = RepairLog()
    rows: list[_Row] = []
    for file, file_split in files:
        rows.extend(_read_file(read_csv(base / file, file), file, file_split, split == "", notes))
    source = files[0][0] if len(files) == 1 else base.name
    fields = _selected_fields(rows, classes, source, notes)
    index = [[_class_index(row, field, notes) for field in fields] for row in rows]
    root, image_files = look_up_images(
        [row.image for row in rows], base, images, source, notes, follow_links, missing_images
    )
    selected = _labelled_rows(rows, index, image_files, notes)
    headers = read_headers(root, [image_files[i] for i in selected], source)
    several = fields if len(fields) > 1 else []
    builder = TableBuilder(
        joined(fields) if several else fields[0].class_map,
        root,
        source=source,
        bad_instances=bad_instances,
        label_fields=several,
    )
    builder.notes.merge(notes)
    for i, header in zip(selected, headers, strict=True):
        builder.add_image(
            image_files[i], header.size_hw, orientation=header.orientation, split=rows[i].split, class_index=index[i]
        )
    return builder.build()


def _is_labels(path: Path) -> bool:
    return csv_kind(path) == "labels"


def label_columns(header: Sequence[str]) -> list[int]:
    """Numbers of the columns that are not path, split or size."""
    others = {column_of(header, PATH_COLUMNS), column_of(header, SPLIT_COLUMNS), *(size_columns(header) or ())}
    return [column for column in range(len(header)) if column not in others]


def _read_file(file: CsvFile, name: str, file_split: str, use_split_column: bool, notes: RepairLog) -> list[_Row]:
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
        rows.append(_Row(ImageReference(cells[path], folder, row_split), where, row_split, labels))
    return rows


def _selected_fields(
    rows: list[_Row], classes: Sequence[str] | None, source: str, notes: RepairLog
) -> list[LabelField]:
    """The selected label fields, with their classes in order. Texts in ``rows`` are replaced by the class names.

    Raises:
        DataError: there is no label, an unknown name in ``classes``, or a column that does not contain classes.
    """
    if all(len(row.labels) == 1 for row in rows):  # one column is one field, even if its name differs between files
        for row in rows:
            row.labels[ONLY_COLUMN] = row.labels.pop(next(iter(row.labels)))
    names = list(dict.fromkeys(name for row in rows for name in row.labels))
    several = len(names) > 1
    selection: dict[str, list[str] | None] = dict.fromkeys(names)
    if classes is not None:
        selection = _parse_selection(classes, names) if several else {name: list(classes) for name in names}
        for name in names:
            if name not in selection:
                notes.add("unselected label column left out", name)
    fields = []
    for name, selected in selection.items():
        existing = _classes_of_column(rows, name, several)
        unknown = [label for label in selected or () if label not in existing]
        if unknown:
            raise DataError(
                f"{source}: no class {', '.join(unknown)} in column {name}; there are {', '.join(existing)}"
            )
        if not existing:
            raise DataError(f"{source}: no label in column {name}; fill it, or select the other columns with --classes")
        fields.append(LabelField(name, ClassMap.from_names(existing if selected is None else selected)))
    if not fields:
        raise DataError(f"{source}: no labels; the file lists no images")
    return fields


def _parse_selection(classes: Sequence[str], names: list[str]) -> dict[str, list[str] | None]:
    """Column -> its selected classes, None for all."""
    selection: dict[str, list[str] | None] = {}
    for text in classes:
        column, equals, label = (text, "", "") if text in names else text.partition("=")
        if column not in names or (column in selection and not (equals and selection[column])):
            raise DataError(
                f"classes: {text!r} is not a label column, or is listed twice; columns are {', '.join(names)}, and "
                f"their classes are written as {names[0]}=..."
            )
        selection[column] = [*(selection.get(column) or ()), label] if equals else None
    return selection


def _classes_of_column(rows: list[_Row], name: str, several: bool) -> list[str]:
    """The classes of a column, in order; numbers in its cells are rewritten as class names."""
    labelled = [row for row in rows if row.labels.get(name)]
    if all(_WHOLE.fullmatch(row.labels[name]) for row in labelled):
        for row in labelled:
            row.labels[name] = row.labels[name].partition(".")[0]
    elif all(_is_number(row.labels[name]) for row in labelled):
        row = next(row for row in labelled if not _WHOLE.fullmatch(row.labels[name]))
        raise DataError(
            f"{row.where}: {name} is {row.labels[name]}, a measured number, not a class; select the label columns "
            "with --classes, or write ranges as classes"
        )
    texts = {row.labels[name] for row in labelled}
    if len(labelled) == len(texts) >= NAMES_FROM:
        raise DataError(
            f"{labelled[0].where}: column {name} has a different text in each of {len(texts)} images, so it does not "
            "contain classes; select the label columns with --classes"
        )
    return ["0", "1"] if several and texts and texts <= {"0", "1"} else in_order(texts)


def _class_index(row: _Row, field: LabelField, notes: RepairLog) -> int:
    text = row.labels.get(field.name, "")
    if text and text not in field.class_map.names:
        notes.add("label of an unselected class left out", f"{row.where}, {field.name}={text}")
        return -1
    return field.class_map.names.index(text) if text else -1


def _labelled_rows(rows: list[_Row], index: list[list[int]], images: list[str], notes: RepairLog) -> list[int]:
    """Numbers of the rows to use: images with a label, each once.

    Raises:
        DataError: an image has two lines with different labels.
    """
    first_row: dict[tuple[str, str], int] = {}
    selected = []
    for i, row in enumerate(rows):
        if not images[i]:  # without a file, noted
            continue
        first = first_row.setdefault((images[i], row.split), i)
        if first != i:
            if index[first] != index[i]:
                raise DataError(
                    f"{row.where}: {row.image.name} has different labels in {rows[first].where}; keep one line per "
                    "image (with a separate column for each kind of label)"
                )
            notes.add("duplicate line left out", row.where)
        elif max(index[i]) < 0:
            notes.add("image without a label left out", f"{row.where} {row.image.name}")
        else:
            selected.append(i)
    return selected


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
