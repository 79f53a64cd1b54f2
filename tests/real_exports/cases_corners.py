"""Corners in any order, negative sizes, rotated boxes, and boxes that only the outline or the keypoints can give."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Right

BOX = (20.0, 20.0, 50.0, 50.0)
RING = [20, 20, 50, 20, 50, 50, 20, 50]
POINTS = [(20.0, 20.0), (50.0, 20.0), (50.0, 50.0), (20.0, 50.0)]
TURNED = [(35.0, 13.787), (56.213, 35.0), (35.0, 56.213), (13.787, 35.0)]
AROUND = (13.787, 13.787, 56.213, 56.213)
SORTED = r"^1 x box with exchanged corners or a negative size read with its corners sorted: .*a\.(png|txt|xml)"
ROTATED = r"^1 x rotated box replaced by its axis-aligned bounding box: .*a\."
KEYPOINTS = [20, 20, 2, 50, 50, 1, 0, 0, 0]


def right(note: str, box: Any = BOX, masks: int = 0, count: int = 1) -> Right:
    return Right({"a.png": [("bolt", box)] * count, "b.png": [("bolt", BOX)]}, note, masks)


def yolo_line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"0 {(x1 + x2) / 192:.9f} {(y1 + y2) / 144:.9f} {(x2 - x1) / 96:.9f} {(y2 - y1) / 72:.9f}"


def cvat_box(x1: float, y1: float, x2: float, y2: float, more: str = "") -> str:
    return f'<box label="bolt" xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}" {more}/>'


def shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "bolt", "shape_type": kind, "points": points, "group_id": None, **more}


def region(name: str, **numbers: float) -> dict[str, Any]:
    return {"shape_attributes": {"name": name, **numbers}, "region_attributes": {"type": "bolt"}}


def case(kind: str, name: str, odd: Any, plain: Any, expected: Right, **more: Any) -> Case:
    """A case of one odd image and a plain one, written by the function of ``sets`` with the format's name."""
    write = getattr(sets, name)
    return Case(kind, name, lambda root: write(root, {"a.png": odd, "b.png": plain}, **more), expected)


COCO = [{"bbox": [20, 20, 30, 30]}]
VIA = [region("rect", x=20, y=20, width=30, height=30)]
LABELME = [shape("rectangle", [(20, 20), (50, 50)])]
CVAT = [cvat_box(*BOX)]

CASES = [
    case("both corners exchanged", "coco", [{"bbox": [50, 50, -30, -30], "area": 900}], COCO, right(SORTED)),
    case("both corners exchanged", "voc", [("bolt", (50, 50, 20, 20))], [("bolt", BOX)], right(SORTED)),
    case(
        "both corners exchanged",
        "yolo",
        [yolo_line(50, 50, 20, 20)],
        [yolo_line(*BOX)],
        right(SORTED),
    ),
    case("both corners exchanged", "cvat", [cvat_box(50, 50, 20, 20)], CVAT, right(SORTED)),
    case("both corners exchanged", "labelme", [shape("rectangle", [(50, 50), (20, 20)])], LABELME, right("")),
    case("both corners exchanged", "via", [region("rect", x=50, y=50, width=-30, height=-30)], VIA, right(SORTED)),
    Case(
        "both corners exchanged",
        "csv",
        partial(
            sets.csv,
            header="filename,xmin,ymin,xmax,ymax,class",
            rows=["a.png,50,50,20,20,bolt", "b.png,20,20,50,50,bolt"],
        ),
        right(SORTED),
    ),
    case("negative width", "coco", [{"bbox": [50, 20, -30, 30], "area": -900}], COCO, right(SORTED)),
    case("negative width", "voc", [("bolt", (50, 20, 20, 50))], [("bolt", BOX)], right(SORTED)),
    case("negative width", "yolo", [yolo_line(50, 20, 20, 50)], [yolo_line(*BOX)], right(SORTED)),
    case("negative width", "cvat", [cvat_box(50, 20, 20, 50)], CVAT, right(SORTED)),
    case("negative width", "labelme", [shape("rectangle", [(50, 20), (20, 50)])], LABELME, right("")),
    case("negative width", "via", [region("rect", x=50, y=20, width=-30, height=30)], VIA, right(SORTED)),
    Case(
        "negative width",
        "csv",
        partial(sets.csv, header="filename,x,y,w,h,class", rows=["a.png,50,20,-30,30,bolt", "b.png,20,20,30,30,bolt"]),
        right(SORTED),
    ),
    case(
        "all corners exchanged, and no other reading",
        "voc",
        [("bolt", (90, 70, 40 + i, 30 + i)) for i in range(6)],
        [("bolt", BOX)],
        Right(
            {"a.png": [("bolt", (40 + i, 30 + i, 90, 70)) for i in range(6)], "b.png": [("bolt", BOX)]},
            SORTED.replace("^1", "^6"),
        ),
    ),
    Case(
        "all corners exchanged, and no other reading",
        "csv",
        partial(
            sets.csv,
            header="filename,x1,y1,x2,y2,class",
            rows=[f"a.png,90,70,{40 + i},{30 + i},bolt" for i in range(6)],
        ),
        Right({"a.png": [("bolt", (40 + i, 30 + i, 90, 70)) for i in range(6)]}, SORTED.replace("^1", "^6")),
    ),
    *(
        case(
            f"outline beside a box that {problem}",
            "coco",
            [{**box, "segmentation": [RING], "area": 0}],
            [{"bbox": [20, 20, 30, 30], "segmentation": [RING]}],
            right(rf"1 x box of the outline used: {note}: .*a\.png", masks=2),
        )
        for problem, box, note in (
            ("is missing", {}, "there is no other"),
            ("is null", {"bbox": None}, "there is no other"),
            ("is empty", {"bbox": [0, 0, 0, 0]}, "the stated box has no width"),
            ("is outside", {"bbox": [200, 20, 30, 30]}, "the stated box is outside the image"),
            ("is negative", {"bbox": [50, 50, -30, -30]}, "the stated box has exchanged corners or a negative size"),
        )
    ),
    case(
        "keypoints without a box",
        "coco",
        [{"keypoints": KEYPOINTS}],
        [{"bbox": [20, 20, 30, 30], "keypoints": KEYPOINTS}],
        right(r"1 x box around the keypoints used: there is no other: .*a\.png"),
    ),
    case(
        "keypoints beside an empty box",
        "coco",
        [{"bbox": [0, 0, 0, 0], "keypoints": KEYPOINTS}],
        [{"bbox": [20, 20, 30, 30], "keypoints": KEYPOINTS}],
        right(r"1 x box around the keypoints used: the stated box has no width: .*a\.png"),
    ),
    Case(
        "keypoints without a box",
        "csv",
        partial(
            sets.csv,
            header="filename,head_x,head_y,tail_x,tail_y,class",
            rows=["a.png,20,20,50,50,bolt", "b.png,50,50,20,20,bolt"],
        ),
        right(""),
    ),
    case(
        "rotated box",
        "coco",
        [{"bbox": [20, 20, 30, 30], "attributes": {"rotation": 45.0}}],
        COCO,
        right(ROTATED, AROUND),
    ),
    case("rotated box", "cvat", [cvat_box(*BOX, 'rotation="45"')], CVAT, right(ROTATED, AROUND)),
    case("rotated box", "labelme", [shape("rotation", TURNED, direction=0.785)], LABELME, right(ROTATED, AROUND)),
    case("oriented box", "labelme", [shape("oriented_rectangle", TURNED)], LABELME, right(ROTATED, AROUND)),
    case("rotated box that is upright", "labelme", [shape("rotation", POINTS, direction=0)], LABELME, right("")),
    case(
        "negative radius",
        "via",
        [region("ellipse", cx=35, cy=35, rx=-15, ry=15)],
        [region("circle", cx=35, cy=35, r=15)],
        right(r"^1 x negative radius read as positive: .*a\.png", masks=2),
    ),
    case(
        "negative radius",
        "cvat",
        ['<ellipse label="bolt" cx="35" cy="35" rx="15" ry="-15"/>'],
        ['<ellipse label="bolt" cx="35" cy="35" rx="15" ry="15"/>'],
        right(r"^1 x negative radius read as positive: .*a\.png", masks=2),
    ),
]
