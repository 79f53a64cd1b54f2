"""Objects whose numbers contradict each other, and objects that are there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.real_exports import any_format, sets
from tests.real_exports.any_format import Objects, writer
from tests.real_exports.case import Case, Right

TWICE: Objects = {
    "a.jpg": [("bolt", (20.0, 10.0, 50.0, 40.0)), ("bolt", (20.0, 10.0, 50.0, 40.0))],
    "b.jpg": [("bolt", (60.0, 20.0, 90.0, 50.0)), ("nut", (60.0, 20.0, 90.0, 50.0))],  # two classes: not the same
}


def _coco(root: Path, **values: Any) -> None:
    item = {"bbox": [20, 10, 30, 25], **values}
    sets.coco(root, {"a.jpg": [item], "b.jpg": [item]})


def tiny_areas(root: Path) -> None:
    _coco(root, area=1.0)


def flipped_boxes(root: Path) -> None:
    """The boxes are counted from the bottom, the outlines from the top."""
    y1, y2 = sets.HEIGHT - 35, sets.HEIGHT - 10
    _coco(root, segmentation=[[20, y1, 50, y1, 50, y2, 20, y2]])


BOLTS = {name: [("bolt", (20.0, 10.0, 50.0, 35.0))] for name in ("a.jpg", "b.jpg")}

CASES = [
    *(
        Case(
            "an object twice",
            name,
            writer(name, TWICE, ["bolt", "nut"]),
            Right(
                {image: list(items) for image, items in TWICE.items()},
                finding=r"^\S*a.jpg, \w+ 2: the class and the box of (annotation|instance) 1 \(bolt\)",
            ),
        )
        for name in any_format.FORMATS
    ),
    Case(
        "areas far smaller than the box",
        "coco",
        tiny_areas,
        Right(BOLTS, finding=r"annotation 1: area 1 in a box of 750 square pixels; correct the area"),
    ),
    Case(
        "box and outline that disagree",
        "coco",
        flipped_boxes,
        Right(BOLTS, finding=r"box \(x, y, width, height\) \[20, 10, 30, 25\], outline in \[20, 37"),
    ),
]
