"""Labelled images whose objects cannot be used are left out, and not learned as images without objects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right
from tests.real_exports.cases_corners import BOX, cvat_box, region, shape, yolo_line

NOTE = {
    "coco": "2 x box dropped: it has no width",
    "voc": "2 x box dropped: it is outside the image",
    "yolo": "2 x box dropped: it has no height",
    "cvat": "2 x shape that is neither box nor polygon left out",
    "labelme": "2 x shape that is neither box nor polygon left out",
    "via": "2 x shape that is neither box nor polygon left out",
    "csv": "2 x box dropped: it has no width",
}
LOST: dict[str, Any] = {
    "coco": {"bbox": [20, 20, 0, 30]},
    "voc": ("bolt", (120, 20, 150, 50)),
    "yolo": "0 0.5 0.5 0.3 0",
    "cvat": '<polyline label="bolt" points="20,20;50,50"/>',
    "labelme": shape("linestrip", [(20, 20), (50, 50)]),
    "via": region("polyline", all_points_x=[20, 50], all_points_y=[20, 50]),
    "csv": "20,20,20,50,bolt",
}
SOUND: dict[str, Any] = {
    "coco": {"bbox": [20, 20, 30, 30]},
    "voc": ("bolt", BOX),
    "yolo": yolo_line(*BOX),
    "cvat": cvat_box(*BOX),
    "labelme": shape("rectangle", [(20, 20), (50, 50)]),
    "via": region("rect", x=20, y=20, width=30, height=30),
    "csv": "20,20,50,50,bolt",
}
SOME_LOST = Right({"b.png": [("bolt", BOX)], "c.png": []})


def writer(name: str, images: dict[str, list[Any]]) -> Callable[[Path], object]:
    if name == "csv":
        rows = [f"{image},{item}" for image, items in images.items() for item in items or [",,,,"]]
        return partial(sets.csv, header="filename,xmin,ymin,xmax,ymax,class", rows=rows)
    write = getattr(sets, name)
    return lambda root: write(root, images)


def some_lost(name: str) -> Case:
    """One image loses its object, one keeps another, and one has none."""
    images = {"a.png": [LOST[name]], "b.png": [LOST[name], SOUND[name]], "c.png": []}
    lost = r"^lost: 2 of 3 objects in 2 images; 1 image lost all its objects and is left out: .*a\.png$"
    return Case("objects lost", name, writer(name, images), Right(SOME_LOST.objects, NOTE[name], lost=lost))


def all_lost(name: str) -> Case:
    """Every image loses its objects; after correction it is read."""
    odd, sound = ({image: [items[name]] for image in ("a.png", "b.png")} for items in (LOST, SOUND))
    message = r"no image has an object that can be used; lost: 2 of 2 objects in 2 images.*correct them, or remove them"
    then = Right({image: [("bolt", BOX)] for image in sound})
    return Case("all objects lost", name, writer(name, odd), Refused(message, then, writer(name, sound)))


def mask(*squares: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    pixels = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    for x1, y1, x2, y2 in squares:
        pixels[y1:y2, x1:x2] = 255
    return pixels


REGIONS = {"mask_values": "regions", "classes": ["bolt"]}
SPECK = (5, 5, 7, 7)
SQUARE = (20, 20, 50, 50)

CASES = [
    *(some_lost(name) for name in LOST),
    *(all_lost(name) for name in LOST),
    Case(
        "objects lost",
        "masks",
        partial(sets.masks, images={"a.png": mask(SPECK), "b.png": mask(SPECK, SQUARE), "c.png": mask()}),
        Right(
            SOME_LOST.objects,
            "region smaller than 16 pixels left out",
            options=REGIONS,
            lost=r"^lost: 1 of 2 objects in 1 image; 1 image lost all its objects and is left out: images/a\.png$",
        ),
    ),
    Case(
        "all objects lost",
        "masks",
        partial(sets.masks, images={"a.png": mask(SPECK), "b.png": mask(SPECK)}),
        Refused(
            r"no image has an object that can be used; lost: 2 of 2 objects in 2 images",
            Right({"a.png": [("bolt", BOX)], "b.png": [("bolt", BOX)]}, options=REGIONS),
            partial(sets.masks, images={"a.png": mask(SQUARE), "b.png": mask(SQUARE)}),
            options=REGIONS,
        ),
    ),
    Case(
        "objects without box, outline and keypoints",
        "coco",
        partial(
            sets.coco,
            images={
                "a.png": [{"bbox": None}],
                "b.png": [{"segmentation": []}, {"bbox": [20, 20, 30, 30]}],
                "c.png": [],
            },
        ),
        Right(
            SOME_LOST.objects,
            r"2 x box dropped: box, outline and keypoints are missing: .*a\.png.*b\.png",
            lost=r"^lost: 2 of 3 objects in 2 images; 1 image .*a\.png$",
        ),
    ),
    Case(
        "landmarks lost",
        "csv",
        partial(
            sets.csv,
            header="filename,head_x,head_y,tail_x,tail_y,class",
            rows=["a.png,,,,,bolt", "b.png,20,20,50,50,bolt", "c.png,,,,,"],
        ),
        Right(
            SOME_LOST.objects,
            r"1 x instance without landmarks and box left out: .*a\.png",
            lost=r"^lost: 1 of 2 objects in 1 image; 1 image .*a\.png$",
        ),
    ),
    Case(
        "crowds are kept",
        "coco",
        partial(
            sets.coco,
            images={
                "a.png": [{"bbox": [20, 20, 0, 30]}, {"bbox": [1, 1, 9, 9], "iscrowd": 1}],
                "b.png": [SOUND["coco"]],
            },
        ),
        Right({"a.png": [], "b.png": [("bolt", BOX)]}, "1 x box dropped", lost="^lost: 1 of 3 objects in 1 image$"),
    ),
    Case(
        "classes that are not selected are not lost",
        "coco",
        partial(
            sets.coco,
            images={"a.png": [{"bbox": [20, 20, 0, 30], "category_id": 2}], "b.png": [SOUND["coco"]]},
        ),
        Right(
            {"a.png": [], "b.png": [("bolt", BOX)]},
            "instance of an unselected class left out",
            options={"classes": ["bolt"]},
            lost="^$",
        ),
    ),
    Case(
        "classes that are not selected are not lost",
        "cvat",
        partial(sets.cvat, images={"a.png": [LOST["cvat"].replace("bolt", "road")], "b.png": [SOUND["cvat"]]}),
        Right(
            {"a.png": [], "b.png": [("bolt", BOX)]},
            "neither box nor polygon",
            options={"classes": ["bolt"]},
            lost="^$",
        ),
    ),
    Case(
        "a shape of a group that is kept is not lost",
        "labelme",
        partial(
            sets.labelme,
            images={
                "a.png": [shape("rectangle", [(20, 20), (50, 50)], group_id=1), shape("point", [(30, 30)], group_id=1)]
            },
        ),
        Right({"a.png": [("bolt", BOX)]}, "neither box nor polygon", lost="^$"),
    ),
]
