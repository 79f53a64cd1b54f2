"""Count the objects of a data set that cannot be used, and the images that lost all their objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from detseg.annotations.repair_log import NAMED
from detseg.short_text import counted


@dataclass(frozen=True)
class LostObjects:
    """Labelled objects that were dropped, of the classes that were selected; the reasons are in the notes of a table.

    An image that lost all its objects is not in the table: it would be learned as an image without objects.

    Attributes:
        objects: number of dropped objects.
        total: number of all objects, the dropped ones included.
        images: number of images with dropped objects.
        left_out: names of the images that are left out, as they lost all their objects.
    """

    objects: int = 0
    total: int = 0
    images: int = 0
    left_out: tuple[str, ...] = ()

    @classmethod
    def sum_of(cls, parts: Iterable[LostObjects]) -> LostObjects:
        """Those of several data sets together."""
        parts = list(parts)
        return cls(
            sum(part.objects for part in parts),
            sum(part.total for part in parts),
            sum(part.images for part in parts),
            tuple(name for part in parts for name in part.left_out),
        )

    def line(self) -> str:
        """``lost: 4 of 10 objects in 2 images; 1 image lost all its objects and is left out: a.jpg``; "" if none."""
        if not self.objects:
            return ""
        text = f"lost: {self.objects} of {counted(self.total, 'object')} in {counted(self.images, 'image')}"
        number = len(self.left_out)
        if not number:
            return text
        names = ", ".join(self.left_out[:NAMED]) + (", ..." if number > NAMED else "")
        left_out = "image lost all its objects and is" if number == 1 else "images lost all their objects and are"
        return f"{text}; {number} {left_out} left out: {names}"
