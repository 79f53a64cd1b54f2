"""Format aligned tables for the terminal."""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?\s?%?|[-–]|nan|")


def align(rows: list[list[str]], header: list[str]) -> list[str]:
    """Lines of a table: header, separator, rows; numeric columns are right-aligned, others left-aligned.

    Widths are display widths: East Asian wide characters count as two columns, combining marks as none.

    Raises:
        ValueError: the lengths of a row and the header differ.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells under a header of {len(header)}: {row}")
    widths = [max(_width(row[column]) for row in [header, *rows]) for column in range(len(header))]
    numeric = [
        bool(rows) and all(_NUMBER.fullmatch(row[column].strip()) for row in rows) for column in range(len(header))
    ]

    def line(cells: list[str]) -> str:
        padded = [
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in rows)]


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
