"""Files that file managers and archivers leave in folders, in every format; and CVAT's empty <meta/>."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from tests.real_exports import cases_missing_images as written
from tests.real_exports import sets
from tests.real_exports.case import Case, Right
from tests.real_exports.cases_missing_images import BOX, NAMES

MAC = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
RIGHT = Right({name: [BOX] for name in NAMES})


def littered(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """The set, with such files in each of its folders, also one for each of its files."""

    def write_all(root: Path) -> None:
        write(root)
        files = [path for path in root.rglob("*") if path.is_file()]
        for path in files:
            sets.put(path.with_name(f"._{path.name}"), MAC)
            sets.put(root / "__MACOSX" / path.relative_to(root).with_name(f"._{path.name}"), MAC)
            for name in (".DS_Store", "Thumbs.db", "thumbs.db", "Desktop.ini"):
                sets.put(path.with_name(name), b"\x00" * 8)

    return write_all


def masks(root: Path) -> None:
    mask = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    mask[20:50, 20:50] = 255
    sets.masks(root, dict.fromkeys(("1.png", "2.png"), mask))


def empty_meta(root: Path) -> None:
    written.cvat(root)
    path = root / "annotations.xml"
    path.write_text(path.read_text().replace("<meta></meta>", "<meta/>"))


def grouped(root: Path) -> None:
    """A mask of rows and columns 20 to 49, and a polygon beside it, in one group."""
    png = base64.b64encode(cv2.imencode(".png", np.full((30, 30), 255, np.uint8))[1].tobytes()).decode()
    common = {"label": "bolt", "group_id": 1}
    mask = {**common, "shape_type": "mask", "points": [[20, 20], [49, 49]], "mask": png}
    polygon = {**common, "shape_type": "polygon", "points": [[60, 60], [70, 60], [70, 70], [60, 70]]}
    sets.labelme(root, {"1.jpg": [mask, polygon], "2.jpg": [polygon, mask]})


UNION = [("bolt", (20.0, 20.0, 70.0, 70.0))]
CASES = [
    *(
        Case("system files", name, littered(getattr(written, name)), RIGHT)
        for name in ("coco", "voc", "yolo", "cvat", "labelme", "via", "csv")
    ),
    Case(
        "system files",
        "masks",
        littered(masks),
        Right(
            {name: [("object", BOX[1])] for name in ("1.png", "2.png")}, "divided|regions|binary|mask values|read as"
        ),
    ),
    Case("empty meta", "cvat", empty_meta, RIGHT),
    Case(
        "mask and polygon in one group",
        "labelme",
        grouped,
        Right({"1.jpg": UNION, "2.jpg": UNION}, "2 x masks and outlines of one group united", masks=2),
    ),
]
