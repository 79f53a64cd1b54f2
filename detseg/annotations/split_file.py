"""Write the split of a run to a file, and read it back."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from detseg.annotations.groups import file_name, first_names, with_notes
from detseg.annotations.split import Splits
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.json_text import JsonError, decode_json
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
    """Write the images of each split as JSON, atomically.

    Args:
        splits: split name -> table, as returned by ``split``.
        path: the file.
        seed, how: stored for information only.
    """
    images_of = {
        name: [{"image_id": int(table.image_id[row]), "file": file_name(table, row)} for row in range(len(table))]
        for name, table in splits.items()
    }
    write_json(path, {"format": FORMAT, "seed": seed, "how": how, "splits": images_of})


def read_split(table: AnnotationTable, path: str | os.PathLike[str]) -> Splits:
    """Split ``table`` as stored in a file of :func:`write_split`, with the images in the same order.

    Images are matched by their path relative to the data folder, and by image id if a path occurs twice, so that data
    that was moved or extended is split in the same way. Images that are not in the file are in no split, with a note;
    images of the file that lost all their objects (``table.lost``) are left out.

    Raises:
        DataError: not a split file, or images of the file are not in ``table``.
        OSError: the file cannot be opened.
    """
    rows_of, missing_of = matching_rows(table, path)
    missing = [name for names in missing_of.values() for name in names]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of its images are not in {table.source or table.root}: {first_names(missing)}; "
            "restore them, or create a new split"
        )
    used = {row for rows in rows_of.values() for row in rows}
    unused = [file_name(table, row) for row in range(len(table)) if row not in used]
    if unused:
        table = with_notes(table, f"image that is not in {Path(path).name} left out", unused)
    return {name: table.subset(rows) for name, rows in rows_of.items()}


def matching_rows(
    table: AnnotationTable, path: str | os.PathLike[str]
) -> tuple[dict[str, list[int]], dict[str, list[str]]]:
    """Split -> rows of its images, matched as in :func:`read_split`; and split -> its images that are not in ``table``.

    Raises:
        DataError: not a split file.
        OSError: the file cannot be opened.
    """
    saved = _read(path)
    rows_of: dict[str, list[int]] = {}
    for row in range(len(table)):
        rows_of.setdefault(file_name(table, row), []).append(row)
    splits: dict[str, list[int]] = {}
    missing: dict[str, list[str]] = {}
    lost = set(table.lost.left_out)
    for name, images in saved.splits.items():
        splits[name], missing[name] = [], []
        for image in images:
            rows = rows_of.get(image.file, [])
            if len(rows) > 1:
                rows = [row for row in rows if table.image_id[row] == image.image_id]
            if rows:
                splits[name].append(rows[0])
            elif image.file not in lost:
                missing[name].append(f"{image.file} (image id {image.image_id}, {name})")
    return splits, missing


def saved_files(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Split -> files of its images, relative to the data folder.

    Raises:
        DataError: not a split file.
        OSError: the file cannot be opened.
    """
    return {name: [image.file for image in images] for name, images in _read(path).splits.items()}


def _read(path: str | os.PathLike[str]) -> _File:
    text = Path(path).read_bytes()
    try:
        saved: _File = decode_json(text, _File)
    except JsonError as error:
        raise DataError(f"{path}: not a split file ({error}); pass the split.json of a run") from None
    if saved.format != FORMAT:
        raise DataError(f"{path}: format {saved.format!r} is not {FORMAT}; pass the split.json of a run")
    return saved
