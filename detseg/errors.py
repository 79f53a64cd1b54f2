"""The one error that bad input raises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class DataError(ValueError):
    """Input that cannot be used: the message says what, where, which value, and what to do about it.

    Files that are missing or cannot be opened stay ``OSError``; our own invariants are ``assert``.
    """


@contextmanager
def in_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever the content of a file breaks is a DataError that names the file."""
    try:
        yield
    except DataError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: corrupt, or not what it says it is ({reason}); use another file") from error
