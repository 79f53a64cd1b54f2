"""Build a table from class labels of images: one row per image, one text for each label field."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detseg.annotations.builder import TableBuilder
from detseg.annotations.image_files import read_headers
from detseg.annotations.image_lookup import ImageReference, look_up_images
from detseg.annotations.label_fields import in_order
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.class_names import UnknownClassError, unknown_class
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError

ONLY_COLUMN = "label"
"""Name of the label column, in messages and when written, if there is only one."""

NAMES_FROM = 20
"""From this many labelled images, a column with a different text in every cell is a name, number or remark."""

_WHOLE = re.compile(r"-?\d+(\.0+)?")


@dataclass(frozen=True)
class LabelRow:
    """One image: its image, its split, and the text of each label column ("" for none)."""

    image: ImageReference
    where: str
    split: str
    labels: dict[str, str]


Tagged = tuple[ImageReference, str, str, dict[str, bool]]
"""An image with its tags: image, where, split, and name of a tag -> whether it is set; empty if none was considered."""


def tag_rows(images: Sequence[Tagged], notes: RepairLog) -> list[LabelRow]:
    """The labels of images that a tool stores as tags: the class of an image is its only tag.

    Where some images have several, each tag is a label field with the classes 0 and 1. If there is only one tag in all
    images, those for which it is not set are of another class, called ``not`` and the tag.
    """
    names = list(dict.fromkeys(name for *_, tags in images for name in tags))
    several = any(sum(tags.values()) > 1 for *_, tags in images)
    rows = []
    for image, where, split, tags in images:
        chosen = [name for name, is_set in tags.items() if is_set]
        labels = {ONLY_COLUMN: chosen[0] if chosen else ""}
        if several:
            labels = {name: str(int(tags.get(name, False))) if tags else "" for name in names}
            notes.add("tags of an image read as label fields with the classes 0 and 1: some images have several", where)
        elif len(names) == 1 and tags and not chosen:
            labels = {ONLY_COLUMN: f"not {names[0]}"}
            notes.add(f"image without the only tag read as class 'not {names[0]}'", where)
        elif chosen:
            notes.add("tag of an image read as its class, because there are no shapes", where)
        rows.append(LabelRow(image, where, split, labels))
    return rows


Fielded = tuple[ImageReference, str, str, dict[str, tuple[str, ...]]]
"""An image with its labels: image, where, split, and name of a field -> its classes, of which there may be several."""


def field_rows(images: Sequence[Fielded], notes: RepairLog) -> list[LabelRow]:
    """The labels of images that a tool stores as choices in named fields: each field is a label field.

    Where some images have several choices of a field, each choice is a label field with the classes 0 and 1; its name
    starts with that of the field if there are several fields.
    """
    choices: dict[str, dict[str, None]] = {}
    for *_, fields in images:
        for name, values in fields.items():
            choices.setdefault(name, {}).update(dict.fromkeys(values))
    several = {name for *_, fields in images for name, values in fields.items() if len(values) > 1}
    rows = []
    for image, where, split, fields in images:
        labels = {}
        for name, known in choices.items():
            values = fields.get(name, ())
            if name not in several:
                labels[name] = values[0] if values else ""
                continue
            for choice in known:
                labels[choice if len(choices) == 1 else f"{name} {choice}"] = str(int(choice in values)) * bool(values)
            notes.add(
                f"choices of {name} read as label fields with the classes 0 and 1: some images have several", where
            )
        rows.append(LabelRow(image, where, split, labels))
    return rows


def labels_table(
    rows: list[LabelRow],
    base: Path,
    images: str | os.PathLike[str] | None,
    *,
    source: str,
    notes: RepairLog,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Find the images, read their headers, and build the table; the texts in ``rows`` are replaced by class names.

    Args:
        rows: the images in the order of the table.
        base: the data folder.
        images: image folder, if it is a different one.
        source: name of the data set in messages.
        notes: notes of the reader so far.
        classes: with one label field, the selected classes, in this order; with several, the selected fields
            (``colour``), or some classes of a field (``colour=red``). The rest is left out with a note.
        bad_instances: "drop" or "error"; it has no effect: there are no instances.
        follow_links: search images behind links that point outside the folder.
        missing_images: "error" or "drop", see ``look_up_images``.

    Raises:
        DataError: input that cannot be used, with file and position.
    """
    fields = _selected_fields(rows, classes, source, notes)
    index = [[_class_index(row, field, notes) for field in fields] for row in rows]
    references = [row.image for row in rows]
    root, image_files = look_up_images(references, base, images, source, notes, follow_links, missing_images)
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


def _selected_fields(
    rows: list[LabelRow], classes: Sequence[str] | None, source: str, notes: RepairLog
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
        selection = _parse_selection(classes, names, rows) if several else {name: list(classes) for name in names}
        for name in names:
            if name not in selection:
                notes.add("unselected label column left out", name)
    fields = []
    for name, selected in selection.items():
        existing = _classes_of_column(rows, name, several)
        unknown = [label for label in selected or () if label not in existing]
        if unknown:
            start = f"{source}: no class {', '.join(unknown)} in column {name}; there are "
            raise unknown_class(start, unknown, existing)
        if not existing:
            raise DataError(f"{source}: no label in column {name}; fill it, or select the other columns with --classes")
        fields.append(LabelField(name, ClassMap.from_names(existing if selected is None else selected)))
    if not fields:
        raise DataError(f"{source}: no labels; the file lists no images")
    return fields


def _parse_selection(classes: Sequence[str], names: list[str], rows: list[LabelRow]) -> dict[str, list[str] | None]:
    """Column -> its selected classes, None for all."""
    selection: dict[str, list[str] | None] = {}
    for text in classes:
        column, equals, label = (text, "", "") if text in names else text.partition("=")
        if column not in names or (column in selection and not (equals and selection[column])):
            cells = (f"{name}={label}" for row in rows for name, label in row.labels.items() if label)
            raise UnknownClassError(
                f"classes: {text!r} is not a label column, or is listed twice; columns are {', '.join(names)}, and "
                f"their classes are written as {names[0]}=...",
                [*names, *dict.fromkeys(cells)],
            )
        selection[column] = [*(selection.get(column) or ()), label] if equals else None
    return selection


def _classes_of_column(rows: list[LabelRow], name: str, several: bool) -> list[str]:
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


def _class_index(row: LabelRow, field: LabelField, notes: RepairLog) -> int:
    text = row.labels.get(field.name, "")
    if text and text not in field.class_map.names:
        notes.add("label of an unselected class left out", f"{row.where}, {field.name}={text}")
        return -1
    return field.class_map.names.index(text) if text else -1


def _labelled_rows(rows: list[LabelRow], index: list[list[int]], images: list[str], notes: RepairLog) -> list[int]:
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
