"""What real projects of Supervisely hold: bitmaps, holes, points, several datasets, splits as tags."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

BOX = (20.0, 20.0, 50.0, 50.0)
RIGHT = {"1.jpg": [("bolt", BOX)]}
BOLT = sets.figure("bolt", "rectangle", (20, 20), (49, 49))


def packed(image: PIL.Image.Image, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return base64.b64encode(zlib.compress(file.getvalue())).decode()


def palette(mask: np.ndarray[Any, Any]) -> str:
    image = PIL.Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    return packed(image, transparency=0)


def colours(mask: np.ndarray[Any, Any]) -> str:
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 200, mask * 130
    return packed(PIL.Image.fromarray(pixels))


def bitmap(data: str, x: float = 20, y: float = 20) -> dict[str, Any]:
    return {"classTitle": "bolt", "geometryType": "bitmap", "bitmap": {"data": data, "origin": [x, y]}}


def written(*objects: Any, classes: Any = (), **more: Any) -> Callable[[Path], None]:
    return lambda root: sets.supervisely(root, {"1.jpg": objects}, classes, **more)


def case(kind: str, write: Callable[[Path], None], expected: Right | Refused) -> Case:
    return Case(kind, "supervisely", write, expected)


def two_datasets(root: Path) -> None:
    sets.supervisely(root / "project", {"train/1.jpg": [BOLT], "val/2.jpg": []}, [{"title": "bolt", "shape": "any"}])


MASK = np.pad(np.ones((28, 30)), ((1, 1), (0, 0)))
MASK[0, 3] = MASK[29, 3] = 1
HOLE = [[(30, 30), (40, 30), (40, 40), (30, 40)]]
SQUARE = ((20, 20), (50, 20), (50, 50), (20, 50))
CASES = [
    case("mask in a palette", written(bitmap(palette(MASK))), Right(RIGHT, masks=1)),
    case("mask in the alpha", written(bitmap(colours(MASK))), Right(RIGHT, masks=1)),
    case(
        "a polygon with a hole", written(sets.figure("bolt", "polygon", *SQUARE, interior=HOLE)), Right(RIGHT, masks=1)
    ),
    case(
        "points and lines",
        written(BOLT, sets.figure("bolt", "point", (3, 3)), sets.figure("bolt", "line", (3, 3), (9, 9))),
        Right(RIGHT, "2 x shape that is neither box nor polygon left out", lost="2"),
    ),
    case("two datasets in a folder", two_datasets, Right({**RIGHT, "2.jpg": []})),
    case(
        "tags as splits",
        written(BOLT, tags=[{"name": "train", "value": None}, {"name": "day", "value": None}]),
        Right(RIGHT, "1 x tags of an image ignored"),
    ),
    case(
        "class by its id only",
        written({**BOLT, "classTitle": None, "classId": 7}, classes=[{"title": "bolt", "id": 7}]),
        Right(RIGHT),
    ),
    case(
        "an image of another size",
        written(BOLT, size={"height": 720, "width": 960}),
        Refused("annotated 960 x 720, file 96 x 72", Right(RIGHT), written(BOLT)),
    ),
    case(
        "a class that meta.json does not define",
        written(BOLT, classes=[{"title": "nut", "shape": "rectangle"}]),
        Refused(r"class 'bolt' is not in the class list", Right(RIGHT), written(BOLT, classes=[{"title": "bolt"}])),
    ),
    case(
        "a corrupt bitmap",
        written(bitmap("AAAA")),
        Refused(r"object 1 \(bolt\): bitmap: its data are not base64 of a zlib stream", Right(RIGHT), written(BOLT)),
    ),
    case(
        "a bitmap beyond the image",
        written(bitmap(palette(MASK), 80)),
        Refused(r"bitmap of 30 x 30 pixels at 80, 20 extends beyond the image of 96 x 72", Right(RIGHT), written(BOLT)),
    ),
    case(
        "a damaged file",
        lambda root: (
            written(BOLT)(root),
            sets.put(root / "ds0/ann/2.jpg.json", json.dumps({"size": 3, "objects": 4})),
        ),
        Refused(
            r"ds0/ann/2.jpg.json: 2 kinds of problems",
            Right(RIGHT),
            lambda root: (root / "ds0/ann/2.jpg.json").unlink(),
        ),
    ),
]
