"""Define the exception that invalid input raises."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from detseg.short_text import one_line

MAX_MESSAGE = 800
"""Most characters of a message; those about long paths need 500."""

WORKER_TRACEBACK = "Original Traceback"
"""In messages of errors that torch has brought from a loader's worker process, whose last line is the error."""


class DataError(ValueError):
    """Invalid input; the message states what is wrong, where, the value and the remedy.

    Missing files or files that cannot be opened raise ``OSError``; internal invariants are ``assert``. Values of
    files cannot make a message long or change a terminal: control characters are escaped, and of more than
    ``MAX_MESSAGE`` characters the middle is left out.

    Args:
        message: one line.
        listing: lines below it.
    """

    def __init__(self, message: object = "", listing: str = "") -> None:
        text = str(message)
        if WORKER_TRACEBACK not in text:
            text = one_line(text, MAX_MESSAGE)
        super().__init__(f"{text}\n{listing}" if listing else text)


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
        reason = one_line(reason_of(error))
        raise DataError(f"{path}: corrupt or of an unexpected format ({reason}); use another file") from error


def reason_of(error: BaseException) -> str:
    """The first line of what an exception of a library says, or its type."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
    if "Integer value out of range" in str(error):  # of msgspec
        return "a whole number is too large"
    if "Exceeds the limit" in str(error):  # of Python, for the digits of a number
        return "a number has thousands of digits"
    return (str(error).splitlines() or [type(error).__name__])[0]
