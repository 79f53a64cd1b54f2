"""Write the same objects in every format that has boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.real_exports import sets

Box = tuple[float, float, float, float]
Objects = dict[str, Sequence[tuple[str, Box]]]
"""Image -> class name and box x1, y1, x2, y2 of its objects."""


def coco(root: Path, images: Objects, classes: Sequence[str]) -> None:
    items = {
        name: [
            {"category_id": classes.index(label) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for label, (x1, y1, x2, y2) in objects
        ]
        for name, objects in images.items()
    }
    sets.coco(root, items, classes)


def voc(root: Path, images: Objects, classes: Sequence[str]) -> None:
    sets.voc(root, images)


def yolo(root: Path, images: Objects, classes: Sequence[str]) -> None:
    lines = {
        name: [
            f"{classes.index(label)} {(x1 + x2) / 2 / sets.WIDTH} {(y1 + y2) / 2 / sets.HEIGHT} "
            f"{(x2 - x1) / sets.WIDTH} {(y2 - y1) / sets.HEIGHT}"
            for label, (x1, y1, x2, y2) in objects
        ]
        for name, objects in images.items()
    }
    sets.yolo(root, lines, classes)


def cvat(root: Path, images: Objects, classes: Sequence[str]) -> None:
    text = '<box label="{}" xtl="{}" ytl="{}" xbr="{}" ybr="{}"/>'
    sets.cvat(root, {name: [text.format(label, *box) for label, box in items] for name, items in images.items()})


def labelme(root: Path, images: Objects, classes: Sequence[str]) -> None:
    shapes = {
        name: [{"label": label, "shape_type": "rectangle", "points": [box[:2], box[2:]]} for label, box in items]
        for name, items in images.items()
    }
    sets.labelme(root, shapes)


def via(root: Path, images: Objects, classes: Sequence[str]) -> None:
    regions = {
        name: [
            {
                "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
                "region_attributes": {"class": label},
            }
            for label, (x1, y1, x2, y2) in items
        ]
        for name, items in images.items()
    }
    sets.via(root, regions)


def csv(root: Path, images: Objects, classes: Sequence[str]) -> None:
    rows = [
        ",".join([name, json.dumps(label, ensure_ascii=False), *map(str, box)])
        for name, items in images.items()
        for label, box in items
    ]
    rows += [f"{name},,,,," for name, items in images.items() if not items]
    sets.csv(root, "filename,class,xmin,ymin,xmax,ymax", rows)


def labelstudio(root: Path, images: Objects, classes: Sequence[str]) -> None:
    sets.labelstudio(
        root, {name: [sets.rectangle(label, *box) for label, box in items] for name, items in images.items()}
    )


def createml(root: Path, images: Objects, classes: Sequence[str]) -> None:
    items = {
        name: [
            {
                "label": label,
                "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
            }
            for label, (x1, y1, x2, y2) in objects
        ]
        for name, objects in images.items()
    }
    sets.createml(root, items)


def supervisely(root: Path, images: Objects, classes: Sequence[str]) -> None:
    items = {
        name: [sets.figure(label, "rectangle", (x1, y1), (x2 - 1, y2 - 1)) for label, (x1, y1, x2, y2) in objects]
        for name, objects in images.items()
    }
    sets.supervisely(root, items, [{"title": name, "shape": "rectangle"} for name in classes])


FORMATS: dict[str, Callable[[Path, Objects, Sequence[str]], None]] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "cvat": cvat,
    "labelme": labelme,
    "via": via,
    "csv": csv,
    "labelstudio": labelstudio,
    "createml": createml,
    "supervisely": supervisely,
}

WITH_CLASS_LIST = ("coco", "yolo", "supervisely")
"""Formats whose files list classes that do not occur (CVAT does so in an optional block)."""


def writer(format: str, images: Objects, classes: Sequence[str]) -> Callable[[Path], None]:
    """A function that writes these objects in a format into a folder."""

    def write(root: Path) -> None:
        FORMATS[format](root, images, classes)

    return write
