"""Images whose names in the annotations are those of another machine or tool, and images behind a link."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.annotations.one_image import ONE_IMAGE, put
from tests.real_exports.case import Case, Refused, Right

FORMATS = {"coco": "coco", "voc": "voc", "yolo": "yolo", "cvat": "cvat", "labelme": "labelme", "via": "via"}
FORMATS |= {name: name for name in ("labelstudio", "labelstudio min", "createml", "via 3")}
FORMATS["csv"] = "csv boxes"
LINES = {"yolo": (11.25, 7.5, 18.75, 12.5)}
"""Boxes other than the usual one."""
LINKED = {"voc": "found by its name alone", "yolo": "found at another path than stated"}
"""Notes about images that are behind a link, in a folder with a name of another format."""
NAMES = {
    "path of another machine": (r"C:\data\set 1\a 1.png", "of another machine found by its file name"),
    "absolute path": ("/home/u/set/images/a 1.png", "of another machine found by its file name"),
    "climbing path": ("../other/images/a 1.png", "of another machine found by its file name"),
    "URL": ("https://example.org/bucket/a%201.png", "found by its"),
    "percent-encoded name": ("a%201.png", "found by its percent-decoded name"),
    "other case": ("A 1.PNG", "with other upper and lower case or blanks"),
}


def written(format: str, stated: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        put(root / "images/a 1.png")
        ONE_IMAGE[FORMATS[format]](root, stated, "images/a 1.png")

    return write


def linked(format: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        put(root.parent / "elsewhere/a 1.png")
        (root / "images").symlink_to(root.parent / "elsewhere")
        ONE_IMAGE[FORMATS[format]](root, "a 1.png", "images/a 1.png")

    return write


def one_object(format: str) -> dict[str, list[tuple[str, tuple[float, float, float, float]]]]:
    return {"a 1.png": [("bolt", LINES.get(format, (1.0, 2.0, 4.0, 6.0)))]}


CASES = [
    *(
        Case(kind, format, written(format, stated), Right(one_object(format), note))
        for kind, (stated, note) in NAMES.items()
        for format in FORMATS
        if format != "yolo"  # whose labels are found by the file names of the images
    ),
    *(
        Case(
            "images behind a link",
            format,
            linked(format),
            Refused(
                "--follow-links", Right(one_object(format), LINKED.get(format, ""), options={"follow_links": True})
            ),
        )
        for format in FORMATS
    ),
]
