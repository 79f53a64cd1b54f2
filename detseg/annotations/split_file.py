"""A split as a file beside a run, and the same split given back."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from detseg.annotations.groups import file_name, first_names, noted
from detseg.annotations.split import Splits
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.files import write_json

FORMAT = "detseg-split-1"


class _Image(msgspec.Struct):
    image_id: int
    file: str


class _File(msgspec.Struct):
    format: str
    splits: dict[str, list[_Image]]
    seed: int | None = None
    how: str = ""


def write_split(splits: Splits, path: str | os.PathLike[str], *, seed: int | None = None, how: str = "") -> None:
    """Write which images are in which part, as JSON, atomically.

    Args:
        splits: part name -> table, as ``split`` gave it.
        path: the file.
        seed, how: kept for the reader of the file; nothing depends on them.
    """
    parts = {
        name: [{"image_id": int(table.image_id[row]), "file": file_name(table, row)} for row in range(len(table))]
        for name, table in splits.items()
    }
    write_json(path, {"format": FORMAT, "seed": seed, "how": how, "splits": parts})


def read_split(table: AnnotationTable, path: str | os.PathLike[str]) -> Splits:
    """The parts of ``table`` that a file of :func:`write_split` names, with the images in the same order.

    Images are found by their path below the data folder, and by image id where a path occurs twice, so that data that
    moved or grew is still divided in the same way. Images that the file does not name are in no part, with a note.

    Raises:
        DataError: not such a file, or images that it names are not in ``table``.
        OSError: the file cannot be opened.
    """
    text = Path(path).read_bytes()
    try:
        saved = msgspec.json.decode(text, type=_File)
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: not a split file ({error}); give the split.json of a run") from None
    if saved.format != FORMAT:
        raise DataError(f"{path}: format {saved.format!r} is not {FORMAT}; give the split.json of a run")
    rows_of: dict[str, list[int]] = {}
    for row in range(len(table)):
        rows_of.setdefault(file_name(table, row), []).append(row)
    parts: dict[str, list[int]] = {}
    missing: list[str] = []
    for name, images in saved.splits.items():
        parts[name] = []
        for image in images:
            rows = rows_of.get(image.file, [])
            if len(rows) > 1:
                rows = [row for row in rows if table.image_id[row] == image.image_id]
            if rows:
                parts[name].append(rows[0])
            else:
                missing.append(f"{image.file} (image id {image.image_id}, {name})")
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its images are not in {table.source or table.root}: {first_names(missing)}; "
            "bring them back, or make a new split"
        )
    used = {row for rows in parts.values() for row in rows}
    unused = [file_name(table, row) for row in range(len(table)) if row not in used]
    if unused:
        table = noted(table, f"image that {Path(path).name} does not name, left out", unused)
    return {name: table.subset(rows) for name, rows in parts.items()}
