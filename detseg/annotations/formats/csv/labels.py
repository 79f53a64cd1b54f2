"""CSV lists of class labels to a table: one line an image, one column a label field."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.csv.columns import PATH_COLUMNS, SPLIT_COLUMNS, column_of, size_columns
from detseg.annotations.formats.csv.csv_file import CsvFile, csv_kind, read_csv
from detseg.annotations.formats.shared.annotation_files import annotation_files, files_of, summary
from detseg.annotations.formats.shared.image_lookup import Wanted, look_up_images
from detseg.annotations.image_files import read_headers
from detseg.annotations.label_fields import in_order
from detseg.annotations.listing import split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError

ONLY_COLUMN = "label"
"""What the column of a file with a single one is called in messages, and written as."""

NAMES_FROM = 20
"""Labelled images from which a column whose cells all differ is no class but a name, a number or a remark."""

_WHOLE = re.compile(r"-?\d+(\.0+)?")


@dataclass(frozen=True)
class _Row:
    """One line: its image, its part, and the text of each label column ("" for none)."""

    image: Wanted
    where: str
    split: str
    labels: dict[str, str]


def find_csv_labels(root: Path, files: list[str]) -> str | None:
    """What is found, if the folder holds CSV files of labels (see ``csv_kind``) at the top, in annotations/, or in
    train/, val/, test/."""
    return summary("CSV labels", annotation_files(root, files, ".csv", _is_labels))


def read_csv_labels(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read CSV files of class labels: a column of paths, and each other column a label field.

    ``path,label`` needs no header; several label columns do. A column ``split`` says train, val or test. An empty cell
    is no label; an image without any is left out with a note. Classes are what the cells say, sorted; whole numbers by
    value (1.0, as spreadsheets write it, is 1). Of several columns, one that holds only 0 and 1 has both as classes
    though one does not occur: so each class of Roboflow's ``_classes.csv`` is a field of its own.

    Args:
        data: the folder, or the CSV file.
        images: folder of the image_files if they are not beside or below the file.
        classes: of one column, the classes that are taken, in this order; of several, the columns that are taken
            (``colour``), or some classes of one (``colour=red``). The rest is left out with a note.
        bad_instances: has no meaning here: there are no instances.
        split: what the split column says; "" lets the files' own column, names and folders say it.

    Raises:
        DataError: what cannot be used, with file, line and remedy.
        OSError: a file or folder is missing.
    """
    base, found = files_of(Path(data), split, ".csv", _is_labels)
    notes = RepairLog()
    rows: list[_Row] = []
    for file, part in found:
        rows.extend(_read_file(read_csv(base / file, file), file, part, split == "", notes))
    source = found[0][0] if len(found) == 1 else base.name
    fields = _selected(rows, classes, source, notes)
    index = [[_index_of(row, field, notes) for field in fields] for row in rows]
    root, image_files = look_up_images([row.image for row in rows], base, images, source, notes)
    kept = _kept(rows, index, image_files, notes)
    headers = read_headers(root, [image_files[i] for i in kept], source)
    several = fields if len(fields) > 1 else []
    builder = TableBuilder(
        joined(fields) if several else fields[0].class_map,
        root,
        source=source,
        bad_instances=bad_instances,
        label_fields=several,
    )
    builder.notes.merge(notes)
    for i, header in zip(kept, headers, strict=True):
        builder.add_image(
            image_files[i], header.size_hw, orientation=header.orientation, split=rows[i].split, class_index=index[i]
        )
    return builder.build()


def _is_labels(path: Path) -> bool:
    return csv_kind(path) == "labels"


def label_columns(header: Sequence[str]) -> list[int]:
    """Numbers of the columns that are neither path nor split nor size."""
    other = {column_of(header, PATH_COLUMNS), column_of(header, SPLIT_COLUMNS), *(size_columns(header) or ())}
    return [column for column in range(len(header)) if column not in other]


def _read_file(file: CsvFile, name: str, part: str, by_column: bool, notes: RepairLog) -> list[_Row]:
    header = file.header or ["filename", ONLY_COLUMN]
    path, split = column_of(header, PATH_COLUMNS), column_of(header, SPLIT_COLUMNS)
    columns = label_columns(header)
    if path is None or not columns:
        raise DataError(
            f"{name}: a column of images called filename and at least one of labels are needed; the header is "
            f"{', '.join(header)}"
        )
    twice = sorted({header[column] for column in columns if header.count(header[column]) > 1})
    if twice:
        raise DataError(f"{name}: two columns are called {twice[0]}; rename one")
    for column in size_columns(header) or ():
        notes.add("column not read", f"{header[column]} ({name})")
    near = name.rpartition("/")[0]
    rows = []
    for line, cells in file.rows:
        where = file.where(line)
        if len(cells) < len(header) or any(cells[len(header) :]):
            wanted = "2 (path and label); give several label columns a header" if file.header is None else len(header)
            raise DataError(f"{where}: {len(cells)} cells, expected {wanted}")
        if not cells[path]:
            raise DataError(f"{where}: no image is named; fill the cell or remove the line")
        own = part
        if split is not None and by_column and cells[split]:
            own = split_of(cells[split])
            if not own:
                notes.add("word for a split that is not train, val or test not used", f"{where} {cells[split]}")
        labels = {header[column]: cells[column] for column in columns}
        for field, text in labels.items():
            if text.lower() == "nan":
                notes.add("cell nan taken as no label", f"{where}, {field}")
                labels[field] = ""
        rows.append(_Row(Wanted(cells[path], near, own), where, own, labels))
    return rows


def _selected(rows: list[_Row], classes: Sequence[str] | None, source: str, notes: RepairLog) -> list[LabelField]:
    """The label fields that are taken, their classes in order. Cells are brought to the names of the classes.

    Raises:
        DataError: there is no label, an unknown name in ``classes``, or a column that is no class.
    """
    if all(len(row.labels) == 1 for row in rows):  # one column is one field, whatever each file calls it
        for row in rows:
            row.labels[ONLY_COLUMN] = row.labels.pop(next(iter(row.labels)))
    names = list(dict.fromkeys(name for row in rows for name in row.labels))
    several = len(names) > 1
    wanted: dict[str, list[str] | None] = dict.fromkeys(names)
    if classes is not None:
        wanted = _wanted(classes, names) if several else {name: list(classes) for name in names}
        for name in names:
            if name not in wanted:
                notes.add("label column that is not selected left out", name)
    fields = []
    for name, chosen in wanted.items():
        known = _classes_of(rows, name, several)
        unknown = [label for label in chosen or () if label not in known]
        if unknown:
            raise DataError(f"{source}: no class {', '.join(unknown)} in column {name}; there are {', '.join(known)}")
        if not known:
            raise DataError(f"{source}: no label in column {name}; fill it, or name the other columns with --classes")
        fields.append(LabelField(name, ClassMap.from_names(known if chosen is None else chosen)))
    if not fields:
        raise DataError(f"{source}: no labels; the file names no images")
    return fields


def _wanted(classes: Sequence[str], names: list[str]) -> dict[str, list[str] | None]:
    """Column -> its classes that are taken, None for all."""
    wanted: dict[str, list[str] | None] = {}
    for text in classes:
        column, equals, label = (text, "", "") if text in names else text.partition("=")
        if column not in names or (column in wanted and not (equals and wanted[column])):
            raise DataError(
                f"classes: {text!r} is no label column, or is named twice; columns are {', '.join(names)}, and their "
                f"classes are named as {names[0]}=..."
            )
        wanted[column] = [*(wanted.get(column) or ()), label] if equals else None
    return wanted


def _classes_of(rows: list[_Row], name: str, several: bool) -> list[str]:
    """The classes of a column, in order; its cells then read like them."""
    labelled = [row for row in rows if row.labels.get(name)]
    if all(_WHOLE.fullmatch(row.labels[name]) for row in labelled):
        for row in labelled:
            row.labels[name] = row.labels[name].partition(".")[0]
    elif all(_is_number(row.labels[name]) for row in labelled):
        row = next(row for row in labelled if not _WHOLE.fullmatch(row.labels[name]))
        raise DataError(
            f"{row.where}: {name} is {row.labels[name]}, a measured number and no class; name the label columns with "
            "--classes, or write ranges as classes"
        )
    known = {row.labels[name] for row in labelled}
    if len(labelled) == len(known) >= NAMES_FROM:
        raise DataError(
            f"{labelled[0].where}: column {name} says something else in each of {len(known)} images, so it holds no "
            "classes; name the label columns with --classes"
        )
    return ["0", "1"] if several and known and known <= {"0", "1"} else in_order(known)


def _index_of(row: _Row, field: LabelField, notes: RepairLog) -> int:
    text = row.labels.get(field.name, "")
    if text and text not in field.class_map.names:
        notes.add("label of a class that is not selected left out", f"{row.where}, {field.name}={text}")
        return -1
    return field.class_map.names.index(text) if text else -1


def _kept(rows: list[_Row], index: list[list[int]], images: list[str], notes: RepairLog) -> list[int]:
    """Rows that become images: images with a label, each once.

    Raises:
        DataError: an image has two lines that disagree.
    """
    first: dict[tuple[str, str], int] = {}
    kept = []
    for i, row in enumerate(rows):
        before = first.setdefault((images[i], row.split), i)
        if before != i:
            if index[before] != index[i]:
                raise DataError(
                    f"{row.where}: {row.image.name} has other labels in {rows[before].where}; give each image one "
                    "line (a label of each kind in a column of its own)"
                )
            notes.add("line that repeats another left out", row.where)
        elif max(index[i]) < 0:
            notes.add("image without a label left out", f"{row.where} {row.image.name}")
        else:
            kept.append(i)
    return kept


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
