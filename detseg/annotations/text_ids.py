"""Keep the text ids of a COCO file: its table has numbers, and results are written with the ids of the file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

WHOLE = re.compile(r"\s*-?(0|[1-9]\d{0,17})\s*")
"""A whole number as a program writes it: 007 is a text, which would be lost as 7."""


@dataclass(frozen=True)
class TextIds:
    """Number of an image or category -> its text id in the file; ids that are numbers in the file are missing."""

    images: dict[int, str] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.images or self.categories)

    def image(self, number: int) -> int | str:
        """The id of an image as in the file."""
        return self.images.get(number, number)

    def category(self, number: int) -> int | str:
        """The id of a category as in the file."""
        return self.categories.get(number, number)

    def image_number(self, written: int | str) -> int | str:
        """The number of an image from its id in another file (results); a text that is not known remains."""
        return _number(written, self.images)

    def category_number(self, written: int | str) -> int | str:
        """The number of a category from its id in another file (results); a text that is not known remains."""
        return _number(written, self.categories)


def _number(written: int | str, texts: dict[int, str]) -> int | str:
    if texts:
        number_of = {text.strip(): number for number, text in texts.items()}
        if str(written).strip() in number_of:
            return number_of[str(written).strip()]
    is_number = isinstance(written, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", written)
    return int(written) if is_number else written
