"""Read text files of data sets, and the numbers in them."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from detseg.errors import DataError
from detseg.media.files import file_size, read_bytes

MAX_BYTES = 2**30
"""A larger file is neither a list nor the annotation of one image."""


def read_text(path: Path, name: str, *, max_bytes: int = MAX_BYTES) -> str:
    """Read UTF-8 text; a byte order mark is accepted.

    Args:
        name: name of the file in messages.
        max_bytes: a larger file is rejected without reading it.

    Raises:
        DataError: the file is too large or not UTF-8.
        OSError: it cannot be read.
    """
    size = file_size(path)
    if size > max_bytes:
        raise DataError(f"{name}: {size} bytes, more than the limit of {max_bytes}; split it into smaller files")
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not UTF-8 text (byte {error.start} is {error.object[error.start]:#04x}); save it as UTF-8"
        ) from None


def parse_finite(text: str) -> float | None:
    """``text`` as a float; None if it is not a number, or not finite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
