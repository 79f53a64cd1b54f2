"""Find the known names that are most like a misspelled one."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Return at most ``most`` of ``names`` that are like ``name``, the nearest first; case does not matter."""
    import difflib  # only messages need it

    by_key = {known.lower(): known for known in names}
    return [by_key[key] for key in difflib.get_close_matches(name.lower(), by_key, n=most)]


def did_you_mean(name: str, names: Iterable[str], most: int = 1) -> str:
    """Return "; did you mean X?" for a message, or "" if no name is like ``name``."""
    similar = nearest(name, names, most)
    return f"; did you mean {either(similar)}?" if similar else ""


def either(names: Iterable[str]) -> str:
    """Join names: "a", "a or b", "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
