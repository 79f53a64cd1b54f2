"""Make archives of folders, in every kind that is read."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from detseg.annotations import AnnotationTable

KINDS = (".zip", ".stored.zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def pack(folder: Path, archive: Path, *, top: str = "") -> Path:
    """An archive of the content of a folder, whose kind follows from its suffix; ``top`` is a folder around it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    archive.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{top}/" if top else ""
    named = [(path, prefix + path.relative_to(folder).as_posix()) for path in files]
    if archive.name.endswith(".zip"):
        method = zipfile.ZIP_STORED if archive.name.endswith(".stored.zip") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(archive, "w", method) as writer:
            for path, name in named:
                writer.write(path, name)
        return archive
    compression = archive.name.rpartition(".")[2].replace("tgz", "gz")
    with tarfile.open(archive, f"w:{'' if compression == 'tar' else compression}") as tar:  # type: ignore[call-overload]
        for path, name in named:
            tar.add(path, name)
    return archive


def moved_into(folder: Path, archive: Path, *, top: str = "") -> Path:
    """:func:`pack`, and the folder is removed."""
    pack(folder, archive, top=top)
    shutil.rmtree(folder)
    return archive


COLUMNS = (
    "image_id", "height", "width", "orientation", "split", "group", "class_index", "start", "stop", "boxes_xywh",
    "label", "area", "iscrowd", "ignore", "difficult",
)  # fmt: skip


def assert_equal_tables(table: AnnotationTable, expected: AnnotationTable, *, columns: Iterable[str] = COLUMNS) -> None:
    """Equal annotations and equal content of the image files, in the same order."""
    assert len(table) == len(expected) > 0
    assert table.class_map.names == expected.class_map.names
    for name in columns:
        np.testing.assert_array_equal(getattr(table, name), getattr(expected, name), err_msg=name)
    for row in range(len(table)):
        assert table[row].name == expected[row].name
