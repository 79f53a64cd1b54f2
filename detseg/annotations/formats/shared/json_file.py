"""Read JSON files of labelling tools as typed values, with errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from detseg.annotations.formats.shared.lenient_json import lenient
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.json_text import JsonError, decode_json
from detseg.media.files import file_size, read_bytes

MAX_BYTES = 2**30
"""A larger file is not an annotation file."""

T = TypeVar("T")


def load_tool_json(path: Path, name: str, schema: type[T], tool: str, notes: RepairLog) -> T:
    """Read a file as ``schema``. A byte order mark is accepted; keys that ``schema`` does not define are ignored.

    Args:
        path: the file.
        name: name of the file in messages.
        schema: a msgspec struct, or another type that msgspec decodes.
        tool: name of the labelling tool in messages.
        notes: values of another type that are read (``lenient_json``) are counted here.

    Raises:
        DataError: too large, empty, not UTF-8, not JSON, or not of this schema; with all wrong keys and their counts.
        OSError: the file cannot be read.
    """
    if file_size(path) > MAX_BYTES:
        raise DataError(f"{name}: larger than {MAX_BYTES >> 20} MiB; split it into several files")
    raw = read_bytes(path)
    if not raw.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{name}: the file is empty; save it again with {tool}, or remove it")
    try:
        return decode_json(raw, schema)
    except JsonError as error:
        if not error.is_json:
            raise DataError(f"{name}: not JSON: {error}; save it again with {tool}, as UTF-8") from None
    value, read_leniently = lenient(raw, schema, name)
    notes.merge(read_leniently)
    return value
