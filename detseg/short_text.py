"""Short texts for ``repr`` and lines: counts, durations, and lists of names that are cut where they are long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``3 images``; ``plural`` for a noun that needs more than an "s"."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """``40 s``, ``4.2 min``, ``25 min``, ``3.5 h``."""
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{max(round(seconds), 1)} s"
    if minutes < 90:
        return f"{minutes:.{1 if minutes < 9.95 else 0}f} min"
    return f"{minutes / 60:.1f} h"


def listed(names: Sequence[str], width: int = 80) -> str:
    """The first names that fit in ``width`` characters, and the number of the others: ``cat, dog and 78 more``."""
    shown: list[str] = []
    for name in names:
        name = name if len(name) <= width // 2 else name[: width // 2 - 3] + "..."
        if shown and len(", ".join([*shown, name])) > width:
            break
        shown.append(name)
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def with_classes(names: Sequence[str]) -> str:
    """``3 classes: bolt, nut, washer``."""
    return counted(len(names), "class", "classes") + (f": {listed(names)}" if names else "")


def as_unicode(name: str) -> str:
    r"""A file name as valid Unicode, for JSON: bytes that are not UTF-8 are written as ``\xe9``."""
    return re.sub(r"[\ud800-\udfff]", lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", name)


def printable(text: str) -> str:
    r"""A text with file names for one line of any terminal: control characters are written as ``\n`` or ``\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in as_unicode(text))


def values(scalars: Mapping[str, float | None], most: int = 6) -> str:
    """The first scalars: ``loss 0.412, loss_mask 0.101``; those that are not defined are left out."""
    defined = [f"{name} {value:.4g}" for name, value in scalars.items() if value is not None]
    return ", ".join(defined[:most])


def tail(text: str, width: int = 80) -> str:
    """The end of ``text``, with "..." for what is left out: of a path the end tells the most."""
    return text if len(text) <= width else "..." + text[-(width - 3) :]
