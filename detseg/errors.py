"""The one error that bad input raises."""

from __future__ import annotations


class DataError(ValueError):
    """Input that cannot be used: the message says what, where, which value, and what to do about it.

    Files that are missing or cannot be opened stay ``OSError``; our own invariants are ``assert``.
    """
