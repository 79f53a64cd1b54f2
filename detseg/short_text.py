"""Short texts for ``repr`` and lines: counts, durations, and lists of names that are cut where they are long."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Characters that move the cursor, change colours or the direction of writing, or cannot be encoded.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


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


def printable_name(name: str) -> str:
    r"""A file name for one line of any terminal: control characters are written as ``\n`` or ``\x1b``."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], as_unicode(name))


def values(scalars: Mapping[str, float | None], most: int = 6) -> str:
    """The first scalars: ``loss 0.412, loss_mask 0.101``; those that are not defined are left out."""
    defined = [f"{name} {value:.4g}" for name, value in scalars.items() if value is not None]
    return ", ".join(defined[:most])


def tail(text: str, width: int = 80) -> str:
    """The end of ``text``, with "..." for what is left out: of a path the end tells the most."""
    return text if len(text) <= width else "..." + text[-(width - 3) :]


def one_line(text: str, width: int = 300) -> str:
    """``text`` with control characters escaped; of a longer one the middle is replaced by "..."."""
    return middle_cut(_CONTROL.sub(lambda match: repr(match[0])[1:-1], text), width)


def printable(text: str) -> str:
    """``text`` with control characters escaped, but for line breaks and tabs."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in "\n\t" else repr(match[0])[1:-1], text)


def middle_cut(text: str, width: int) -> str:
    """``text``, or its start and end with " ... " between them if it is longer than ``width``."""
    if len(text) <= width:
        return text
    tail_width = (width - 5) // 3
    return f"{text[: width - 5 - tail_width]} ... {text[-tail_width:]}"
