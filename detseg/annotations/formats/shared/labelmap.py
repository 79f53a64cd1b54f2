"""Parse ``labelmap.txt``, the list of classes and colours in CVAT's exports for Pascal VOC and segmentation masks."""

from __future__ import annotations

import re

from detseg.errors import DataError

_COLOUR = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*")


def parse_labelmap(text: str) -> list[tuple[str, str]]:
    """(name, colour) of each line ``name:red,green,blue:parts:actions``, in order; the colour may be "". Lines of
    another form, without a name, and comments (#) are left out."""
    lines = [line.strip() for line in text.splitlines()]
    fields = [line.rsplit(":", 3) for line in lines if line.count(":") >= 3 and not line.startswith("#")]
    return [(name, colour.strip()) for name, colour, _, _ in fields if name]


def parse_colour(text: str, name: str, file: str) -> int:
    """``red << 16 | green << 8 | blue``.

    Raises:
        DataError: not three numbers from 0 to 255.
    """
    match = _COLOUR.fullmatch(text)
    red, green, blue = map(int, match.groups()) if match else (256, 256, 256)
    if max(red, green, blue) > 255:
        raise DataError(
            f"{file}: the colour {text!r} of {name} is not three numbers from 0 to 255; write the line as "
            f"{name}:250,50,83::"
        )
    return red << 16 | green << 8 | blue
