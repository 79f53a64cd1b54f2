"""Classes get other names, are merged and then selected, in every format that has boxes or masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.real_exports import sets
from tests.real_exports.case import Box, Case, Refused, Right

BOX_A: Box = (10.0, 12.0, 40.0, 36.0)
BOX_B: Box = (50.0, 20.0, 80.0, 60.0)
BOX_C: Box = (14.0, 40.0, 34.0, 60.0)
OBJECTS = [("object", BOX_A), ("M6", BOX_B), ("nut", BOX_C)]
"""What is drawn in each image of each set."""

Boxes = list[tuple[str, Box]]


def named(**names: str) -> Boxes:
    """The objects under other names; those called "" are left out."""
    return [(names.get(name, name), box) for name, box in OBJECTS if names.get(name, name)]


def coco(root: Path) -> None:
    items = [
        {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "category_id": number}
        for number, (_, (x1, y1, x2, y2)) in enumerate(OBJECTS, 1)
    ]
    sets.coco(root, {"a.png": items, "b.png": items}, [name for name, _ in OBJECTS])


def voc(root: Path) -> None:
    sets.voc(root, {"a.png": OBJECTS, "b.png": OBJECTS})


def yolo(root: Path) -> None:
    lines = [
        f"{number} {(x1 + x2) / 2 / 96:.9f} {(y1 + y2) / 2 / 72:.9f} {(x2 - x1) / 96:.9f} {(y2 - y1) / 72:.9f}"
        for number, (_, (x1, y1, x2, y2)) in enumerate(OBJECTS)
    ]
    sets.yolo(root, {"a.png": lines, "b.png": lines}, [name for name, _ in OBJECTS])


def cvat(root: Path) -> None:
    shapes = [
        f'<box label="{name}" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"/>' for name, (x1, y1, x2, y2) in OBJECTS
    ]
    sets.cvat(root, {"a.png": shapes, "b.png": shapes})


def labelme(root: Path) -> None:
    shapes = [
        {"label": name, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"} for name, (x1, y1, x2, y2) in OBJECTS
    ]
    sets.labelme(root, {"a.png": shapes, "b.png": shapes})


def via(root: Path) -> None:
    regions = [
        {
            "shape_attributes": {"name": "rect", "x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1},
            "region_attributes": {"class": name},
        }
        for name, (x1, y1, x2, y2) in OBJECTS
    ]
    sets.via(root, {"a.png": regions, "b.png": regions})


def csv(root: Path) -> None:
    rows = [f"{image},{','.join(map(str, box))},{name}" for image in ("a.png", "b.png") for name, box in OBJECTS]
    sets.csv(root, "filename,xmin,ymin,xmax,ymax,class", rows)


def masks(root: Path) -> None:
    """Class values 1 to 3 with names beside the masks."""
    mask = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    for value, (_, (x1, y1, x2, y2)) in enumerate(OBJECTS, 1):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = value
    sets.masks(root, {"a.png": mask, "b.png": mask})
    sets.put(root / "masks" / "classes.txt", "".join(f"{name}\n" for name in ("background", "object", "M6", "nut")))


WRITERS = {
    "coco": coco, "voc": voc, "yolo": yolo, "cvat": cvat, "labelme": labelme, "via": via, "csv": csv, "masks": masks,
}  # fmt: skip
MASK_NOTE = {"masks": "mask values interpreted as class"}


def both(boxes: Boxes) -> dict[str, Boxes]:
    return {"a.png": boxes, "b.png": boxes}


def number_masks(root: Path) -> None:
    """Class values without names."""
    masks(root)
    (root / "masks" / "classes.txt").unlink()


MERGED = r"1 x new class name that merges classes: bolt: (object|M6) \(2 instances\), (object|M6) \(2 instances\)"
CASES = [
    *(
        Case(
            "a renamed class",
            name,
            write,
            Right(both(named(object="balloon")), note=MASK_NOTE.get(name, ""), options={"rename": "object=balloon"}),
        )
        for name, write in WRITERS.items()
    ),
    *(
        Case(
            "exchanged names",
            name,
            write,
            Right(
                both(named(object="nut", nut="object")),
                note=MASK_NOTE.get(name, ""),
                options={"rename": {"object": "nut", "nut": "object"}},
            ),
        )
        for name, write in WRITERS.items()
    ),
    *(
        Case(
            "classes merged, then selected",
            name,
            write,
            Right(
                both(named(object="bolt", M6="bolt", nut="")),
                note=MERGED,
                options={"rename": ["object=bolt", "M6=bolt"], "classes": "bolt"},
            ),
        )
        for name, write in WRITERS.items()
    ),
    *(
        Case(
            "a new name that another class has",
            name,
            write,
            Right(
                both(named(object="nut")),
                note=r"merges classes: nut: \w+ \(2 instances\), \w+ \(2 instances\)",
                options={"rename": "object=nut", "classes": ["nut", "M6"]},
            ),
        )
        for name, write in WRITERS.items()
    ),
    *(
        Case(
            "a misspelled old name",
            name,
            write,
            Refused(
                r"--rename objct=balloon: .* has no class 'objct'; it has .*; did you mean object\?",
                Right(
                    both(named(object="balloon")), note=MASK_NOTE.get(name, ""), options={"rename": "object=balloon"}
                ),
                options={"rename": "objct=balloon"},
            ),
        )
        for name, write in WRITERS.items()
    ),
    Case(
        "numbers of masks named",
        "masks",
        number_masks,
        Right(
            both(named()),
            note="mask values interpreted as class",
            options={"rename": "class 1=object,class 2=M6,class 3=nut", "classes": "object,M6,nut"},
        ),
    ),
]
