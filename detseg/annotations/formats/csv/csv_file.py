"""Read a CSV file as rows of text, and detect its kind of annotations."""

from __future__ import annotations

import csv
import io
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from detseg.annotations.formats.csv.columns import (
    ID_COLUMNS,
    PATH_COLUMNS,
    SPLIT_COLUMNS,
    box_columns,
    canonical,
    column_of,
    point_columns,
    size_columns,
)
from detseg.annotations.formats.csv.video_frames import with_frame_paths
from detseg.annotations.formats.shared.text_file import parse_finite
from detseg.annotations.listing import is_image
from detseg.errors import DataError
from detseg.media.files import file_size, open_file, read_bytes
from detseg.nearest import did_you_mean

CsvKind = Literal["boxes", "landmarks", "labels"]

MAX_BYTES = 2**30
"""A larger file is not a table of annotations."""

_HEAD = 2**16  # bytes read to detect the kind
_VIA = "region_shape_attributes"  # VIA's CSV export has JSON in its cells


@dataclass(frozen=True)
class CsvFile:
    """A table of text. Columns ``video, frame`` are one column ``filename``, see ``video_frames.py``.

    Attributes:
        name: name of the file in messages.
        delimiter: "," or ";" or a tab.
        header: the first row if it names columns; None if it is data.
        rows: (line number from 1, cells without surrounding spaces) of each row that is not empty.
    """

    name: str
    delimiter: str
    header: list[str] | None
    rows: list[tuple[int, list[str]]]

    def where(self, line: int) -> str:
        """The beginning of a message about one line."""
        return f"{self.name}, line {line}"

    def number(self, cell: str, name: str, line: int) -> float:
        """A finite number; DataError for anything else. If ``;`` separates cells, a comma may be the decimal sign."""
        value = parse_finite(cell.replace(",", ".") if self.delimiter == ";" else cell)
        if value is None:
            raise DataError(f"{self.where(line)}: {name} {_shortened(cell)} is not a finite number; correct the cell")
        return value


def read_csv(path: Path, name: str = "") -> CsvFile:
    """Read a UTF-8 CSV file (a byte order mark is accepted) separated by comma, semicolon or tab.

    The first row is a header if no cell is a number, the name of an image, or empty (except the first).

    Args:
        path: the file.
        name: name of the file in messages; "" uses its own name.

    Raises:
        DataError: the file is empty, too large, not UTF-8, or ends inside a quoted cell.
        OSError: it cannot be opened.
    """
    name = name or path.name
    if file_size(path) > MAX_BYTES:
        raise DataError(f"{name}: larger than {MAX_BYTES >> 20} MiB; split it into several files")
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8 (in a spreadsheet: "
            "CSV UTF-8)"
        ) from None
    file = _parsed(text, name)
    if file.header is None and not file.rows:
        raise DataError(f"{name}: the file is empty; export it again")
    return file


def stated_column(file: CsvFile, name: str, used: Container[int | None]) -> int:
    """The number of the column that the user states as the class; case and punctuation do not matter.

    Args:
        used: columns that are something else.

    Raises:
        DataError: the file has no header, or no such column that may be the class.
    """
    if file.header is None:
        raise DataError(
            f"{file.name}: --class-attribute {name}: the file has no header with names of columns; add one, or omit "
            "the option"
        )
    columns = [number for number, cell in enumerate(file.header) if cell and number not in used]
    same = [number for number in columns if file.header[number] == name]
    same = same or [number for number in columns if canonical([file.header[number]]) == canonical([name])]
    if not same:
        names = [file.header[number] for number in columns]
        raise DataError(
            f"{file.name}: --class-attribute {name}: no such column that may be the class; there are "
            f"{', '.join(names) or 'none'}{did_you_mean(name, names)}"
        )
    return same[0]


def csv_kind(path: Path) -> CsvKind | None:
    """Kind of annotations in a CSV file, detected from its first rows: a path in each row, and

    boxes: box columns, or no header and path, x1, y1, x2, y2, class (five empty cells for a negative image);
    landmarks: pairs of columns ``<name>_x, <name>_y``;
    labels: neither, but at least one more column.

    None for any other file, and for one that cannot be parsed.
    """
    try:
        with open_file(path) as stream:
            head = stream.read(_HEAD)
        text = head.decode("utf-8-sig", "replace")
        if len(head) == _HEAD:
            text = text[: text.rfind("\n") + 1]
        file = _parsed(text, path.name, strict=False)
    except (DataError, OSError):
        return None
    if file.header is None:
        return _kind_without_header(file.rows)
    column = column_of(file.header, PATH_COLUMNS)
    if column is None or _VIA in canonical(file.header):
        return None
    points = point_columns(file.header)
    if points:
        return "landmarks"
    if box_columns(file.header) is not None:
        return "boxes"
    split = column_of(file.header, SPLIT_COLUMNS)
    others = set(range(len(file.header))) - {column, split, *(size_columns(file.header) or ())}
    if not others or [canonical(file.header)[index] for index in others] == ["group"]:
        return None  # a list of groups (--group) has no classes
    if canonical(file.header)[column] in ID_COLUMNS and len(file.header) > 2:
        cells = [row[column] for _, row in file.rows if column < len(row)]
        return "labels" if cells and all(map(is_image, cells)) else None
    return "labels"


def _kind_without_header(rows: list[tuple[int, list[str]]]) -> CsvKind | None:
    if not rows or not all(is_image(row[0]) for _, row in rows):
        return None
    if all(len(row) == 6 and (all(map(_is_number, row[1:5])) or not any(row[1:])) for _, row in rows):
        return "boxes"
    if all(len(row) >= 2 and row[1] and (len(row) == 2 or not any(map(_is_number, row[1:]))) for _, row in rows):
        return "labels"
    return None


def _parsed(text: str, name: str, strict: bool = True) -> CsvFile:
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=strict)
    rows = []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(
            f"{name}, line {reader.line_num}: not CSV ({error}); close the quotes, or export the file again"
        ) from None
    header = None
    if rows and _is_header(rows[0][1]):
        header = _without_trailing_empty(rows.pop(0)[1])
        header, rows = with_frame_paths(header, rows, name, strict)
    return CsvFile(name, delimiter, header, rows)


def _is_header(cells: list[str]) -> bool:
    """Whether every cell is a word; the first may be empty, because pandas writes an unnamed index."""
    words = _without_trailing_empty(cells)
    words = words[not words[0] :]
    return not any(not word or _is_number(word) or is_image(word) for word in words)


def _without_trailing_empty(cells: list[str]) -> list[str]:
    """Cells without empty ones at the end: spreadsheets add empty columns."""
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _delimiter(text: str) -> str:
    """The most frequent separator in the first line that has one outside quotes; a comma if there is none."""
    for line in text.splitlines()[:20]:
        outside = "".join(line.split('"')[::2])
        best = max(",;\t", key=outside.count)
        if outside.count(best):
            return best
    return ","


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shortened(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:40]}...")
