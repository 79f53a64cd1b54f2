"""Define the exception that invalid input raises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class DataError(ValueError):
    """Invalid input; the message states what is wrong, where, the value and the remedy.

    Missing files or files that cannot be opened raise ``OSError``; internal invariants are ``assert``.
    """


@contextmanager
def in_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert exceptions caused by a file's content to a DataError that contains the file's path."""
    try:
        yield
    except DataError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: corrupt or of an unexpected format ({reason}); use another file") from error
