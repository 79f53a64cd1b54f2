"""Rectangles among polygons: they become masks, are left out, or only boxes are trained."""

from __future__ import annotations

from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Right
from tests.real_exports.cases_corners import BOX, POINTS, RING, cvat_box, region, shape, yolo_line

OTHER = (60.0, 10.0, 80.0, 40.0)
POLYGON: dict[str, Any] = {
    "coco": {"bbox": [20, 20, 30, 30], "segmentation": [RING]},
    "yolo": "0 " + " ".join(f"{x / 96:.9f} {y / 72:.9f}" for x, y in POINTS),
    "cvat": f'<polygon label="bolt" points="{";".join(f"{x},{y}" for x, y in POINTS)}"/>',
    "labelme": shape("polygon", POINTS),
    "via": {
        **region("polygon"),
        "shape_attributes": {
            "name": "polygon",
            "all_points_x": [x for x, _ in POINTS],
            "all_points_y": [y for _, y in POINTS],
        },
    },
}
RECTANGLE: dict[str, Any] = {
    "coco": {"bbox": [60, 10, 20, 30]},
    "yolo": yolo_line(*OTHER),
    "cvat": cvat_box(*OTHER),
    "labelme": shape("rectangle", [(60, 10), (80, 40)]),
    "via": region("rect", x=60, y=10, width=20, height=30),
}
MASKED, PLAIN = ("bolt", BOX), ("bolt", OTHER)
USED = r"1 x box used as the mask of an instance without one, .*--without-mask drop.*: .*b\.png"
LEFT_OUT = r"instance without a mask left out \(--without-mask drop\): .*b\.png"


def cases(name: str) -> list[Case]:
    polygon, rectangle, write = POLYGON[name], RECTANGLE[name], getattr(sets, name)
    few = {"a.png": [polygon], "b.png": [polygon, rectangle]}
    objects = {"a.png": [MASKED], "b.png": [MASKED, PLAIN]}
    alone = {"a.png": [polygon, polygon], "b.png": [rectangle]}
    many = {"a.png": [polygon], "b.png": [rectangle, rectangle]}
    expected = {
        "a box among outlines": (few, Right(objects, USED, 3)),
        "a box among outlines, dropped": (
            few,
            Right(
                {**objects, "b.png": [MASKED]},
                LEFT_OUT,
                2,
                {"without_mask": "drop"},
                lost="^lost: 1 of 3 objects in 1 image$",
            ),
        ),
        "an image with a box only, dropped": (
            alone,
            Right(
                {"a.png": [MASKED] * 2},
                LEFT_OUT,
                2,
                {"without_mask": "drop"},
                lost=r"^lost: 1 of 3 objects in 1 image; 1 image lost all its objects and is left out: .*b\.png$",
            ),
        ),
        "a box among outlines, kept": (few, Right(objects, "", 2, {"without_mask": "keep"})),
        "an outline among boxes": (many, Right({"a.png": [MASKED], "b.png": [PLAIN] * 2}, "", 1)),
        "an outline among boxes, all used": (
            many,
            Right({"a.png": [MASKED], "b.png": [PLAIN] * 2}, "2 x box used as the mask", 3, {"without_mask": "box"}),
        ),
    }
    return [
        Case(
            kind,
            name,
            lambda root, images=images: write(root, images),  # type: ignore[misc]
            right,
            without={"convert": "what it writes is read here without the option"} if kind.endswith("kept") else {},
        )
        for kind, (images, right) in expected.items()
    ]


CASES = [case for name in POLYGON for case in cases(name)]
