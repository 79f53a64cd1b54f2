"""What real files of Create ML hold: shares instead of pixels, older keys, missing values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

RIGHT = {"1.jpg": [("bolt", (20.0, 20.0, 50.0, 50.0))]}
BOX = {"x": 35, "y": 35, "width": 30, "height": 30}
SHARES = {"x": 35 / 96, "y": 35 / 72, "width": 30 / 96, "height": 30 / 72}
BOLT = {"label": "bolt", "coordinates": BOX}


def written(content: Any, *images: str, name: str = "_annotations.createml.json") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        for image in images or ("1.jpg",):
            sets.image(root / image)
        sets.put(root / name, json.dumps(content))

    return write


def case(kind: str, write: Callable[[Path], None], expected: Right | Refused) -> Case:
    return Case(kind, "createml", write, expected)


CASES = [
    case(
        "shares instead of pixels",
        written([{"image": "1.jpg", "annotations": [{"label": "bolt", "coordinates": SHARES}]}]),
        Right(RIGHT, "1 x coordinates of at most 1 read as shares"),
    ),
    case("keys of an older version", written([{"imagefilename": "1.jpg", "annotation": [BOLT]}]), Right(RIGHT)),
    case(
        "an image without objects",
        written([{"image": "1.jpg", "annotations": [BOLT]}, {"image": "2.jpg", "annotations": []}], "1.jpg", "2.jpg"),
        Right({**RIGHT, "2.jpg": []}),
    ),
    case(
        "an annotation without coordinates",
        written([{"image": "1.jpg", "annotations": [BOLT, {"label": None, "coordinates": None}]}]),
        Right(RIGHT, "1 x annotation without coordinates and label left out"),
    ),
    case(
        "an incomplete box",
        written([{"image": "1.jpg", "annotations": [{"label": "bolt", "coordinates": {**BOX, "width": None}}]}]),
        Refused(
            r"image 1, annotation 1 \(bolt\): the coordinates need x, y, width and height",
            Right(RIGHT),
            written([{"image": "1.jpg", "annotations": [BOLT]}]),
        ),
    ),
    case(
        "an entry without an image",
        written([{"image": "1.jpg", "annotations": [BOLT]}, {"annotations": [BOLT]}]),
        Refused(
            'image 2: no image; add its file name as "image"',
            Right(RIGHT),
            written([{"image": "1.jpg", "annotations": [BOLT]}]),
        ),
    ),
]
