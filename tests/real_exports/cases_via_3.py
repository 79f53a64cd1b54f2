"""What real projects of VIA 3 hold: shapes by number, options by id, videos and segments of time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

BOX = (20.0, 20.0, 50.0, 50.0)
RIGHT = {"1.jpg": [("bolt", BOX)]}
RECTANGLE = ("0", (2, 20, 20, 30, 30))


def written(*regions: tuple[Any, Sequence[float]], **more: Any) -> Callable[[Path], None]:
    return lambda root: sets.via_3(root, {"1.jpg": regions}, **more)


def case(kind: str, write: Callable[[Path], None], expected: Right | Refused) -> Case:
    return Case(kind, "via", write, expected)


def files(**more: dict[str, Any]) -> dict[str, Any]:
    """A file and a view of each kind beside the image."""
    first = {"fid": 1, "fname": "1.jpg", "type": 2, "loc": 1, "src": ""}
    views = {"1": {"fid_list": [1]}, **{key: {"fid_list": [key]} for key in more}}
    return {"file": {"1": first, **more}, "view": views}


VIDEO = {"fname": "a.mp4", "type": 4, "loc": 1, "src": ""}
SEGMENT = {"2_a": {"vid": "2", "flg": 0, "z": [1.5, 3], "xy": [], "av": {"1": "0"}}}
REGION = {"1_a": {"vid": "1", "flg": 0, "z": [], "xy": [2, 20, 20, 30, 30], "av": {"1": "0"}}}
FRAME = {"1_b": {"vid": "1", "flg": 0, "z": [2.5, 4], "xy": [], "av": {"1": "0"}}}
TEXT = {"1": {"aname": "remark", "type": 1}, "2": {"aname": "class", "type": 2, "options": {"b": "bolt", "n": "nut"}}}
URL = {"fid": 1, "fname": "", "type": 2, "loc": 2, "src": "https://example.org/set/1.jpg"}
CASES = [
    case("VIA 3: a rectangle", written(RECTANGLE), Right(RIGHT)),
    case(
        "VIA 3: other shapes",
        written(("0", (7, 20, 20, 50, 20, 50, 50)), ("0", (3, 35, 35, 15)), ("0", (4, 35, 35, 15, 15))),
        Right({"1.jpg": [("bolt", BOX)] * 3}, "an instance twice|", masks=3),
    ),
    case("VIA 3: extreme points", written(("0", (8, 20, 30, 30, 20, 50, 40, 40, 50))), Right(RIGHT)),
    case("VIA 3: circle through points", written(("0", (9, 20, 35, 35, 20, 50, 35))), Right(RIGHT, masks=1)),
    case(
        "VIA 3: points and lines",
        written(RECTANGLE, ("0", (1, 3, 3)), ("0", (5, 3, 3, 9, 9)), ("0", (6, 1, 1, 5, 5, 9, 1))),
        Right(RIGHT, "3 x shape that is neither box nor polygon left out", lost="3"),
    ),
    case(
        "VIA 3: a checkbox",
        written(metadata={"1_a": {**REGION["1_a"], "av": {"1": "new", "2": "b"}}}, attribute=TEXT),
        Right(RIGHT, "region attribute used as the class: class"),
    ),
    case(
        "VIA 3: a video beside the images",
        written(metadata={**REGION, **SEGMENT, **FRAME}, **files(**{"2": VIDEO})),
        Right(RIGHT, "1 x video left out(.|\n)*1 x annotation of a view that is not read(.|\n)*1 x segment of time"),
    ),
    case(
        "VIA 3: an image at a URL",
        written(metadata=REGION, file={"1": URL}, view={"1": {"fid_list": ["1"]}}),
        Right(RIGHT, "path of another machine"),
    ),
    case(
        "VIA 3: only a video",
        written(metadata=SEGMENT, file={"2": VIDEO}, view={"2": {"fid_list": ["2"]}}),
        Refused("a VIA 3 project without images", Right(RIGHT), written(RECTANGLE)),
    ),
    case(
        "VIA 3: an incomplete shape",
        written(("0", (2, 20, 20))),
        Refused(r"metadata 1_0 \(1.jpg\): 2 coordinates of shape 2, expected 4", Right(RIGHT), written(RECTANGLE)),
    ),
]
