"""JSON files of labelling tools as typed values; what does not fit is named with its file."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from detseg.errors import DataError

MAX_BYTES = 2**30
"""A larger file is no file of annotations."""

T = TypeVar("T")


def load_tool_json(path: Path, name: str, form: type[T], tool: str) -> T:
    """Read a file as ``form``. A byte order mark is accepted; keys that ``form`` does not have are passed over.

    Args:
        path: the file.
        name: what messages call it.
        form: a msgspec struct, or another type that msgspec decodes.
        tool: whose file it should be, for messages.

    Raises:
        DataError: too large, empty, not UTF-8, not JSON, or not of this form; with the place.
        OSError: the file cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{name}: larger than {MAX_BYTES >> 20} MiB; divide it into several files")
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not raw.strip():
        raise DataError(f"{name}: the file is empty; save it again with {tool}, or remove it")
    try:
        return msgspec.json.decode(raw, type=form)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        at = f", at {place.strip('`')}" if place else ""
        raise DataError(f"{name}{at}: {problem}; not what {tool} writes: correct or remove it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{name}: not JSON ({error}); save it again with {tool}") from None
