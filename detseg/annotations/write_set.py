"""Write a table with its images as a new data set."""

from __future__ import annotations

from pathlib import Path

from detseg.annotations.formats.all_formats import format_named
from detseg.annotations.formats.shared.write_result import WriteResult
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import copy_file
from detseg.runtime.complete_folder import complete_folder
from detseg.runtime.reporter import Reporter


def check_writable(format: str) -> None:
    """DataError if a format can only be read."""
    if format_named(format).write is None:
        raise DataError(f"--to {format}: this format can be read, but not written")


def write_set(table: AnnotationTable, output: Path, format: str, reporter: Reporter) -> WriteResult:
    """Write ``table`` in a format into a new folder, and copy its images.

    If something fails, for example for lack of space, nothing is left in the folder.

    Raises:
        DataError: the folder is not empty, or the format cannot represent the table, or only be read.
        OSError: an image cannot be copied.
    """
    check_writable(format)
    write = format_named(format).write
    assert write is not None
    with complete_folder(output) as folder:
        written = write(table, folder)
        names = zip(table, written.images, strict=True)
        for record, name in reporter.progress(names, "copying images", total=len(table), unit="image"):
            copy_file(record.path, folder / name)
    return written
