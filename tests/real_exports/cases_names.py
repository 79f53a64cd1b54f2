"""Class names that are probably mistakes: differing in case, blanks or Unicode form only; background; classes that do
not occur."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from tests.real_exports import any_format, sets
from tests.real_exports.any_format import Box, Objects, writer
from tests.real_exports.case import Case, Right

BOX: Box = (20.0, 10.0, 50.0, 40.0)
CAFE, COMBINED = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")

TWO_CASES: Objects = {"a.jpg": [("Bolt", BOX)], "b.jpg": [("bolt", BOX)]}
TWO_FORMS: Objects = {"a.jpg": [(CAFE, BOX)], "b.jpg": [(COMBINED, BOX)]}
BLANKS: Objects = {"a.jpg": [("hex bolt", BOX)], "b.jpg": [("hex  bolt", BOX)]}
IGNORED: Objects = {"a.jpg": [("bolt", BOX), ("__ignore__", (60.0, 10.0, 90.0, 40.0))], "b.jpg": [("nut", BOX)]}
BOLTS: Objects = {"a.jpg": [("bolt", BOX)], "b.jpg": [("bolt", BOX)]}
CLASS_LABELS = {
    "evaluate": "images with a class have no boxes, which this command compares here",
    "convert": "images with a class have no boxes, which COCO needs",
}


def right(images: Objects, finding: str) -> Right:
    return Right({name: list(objects) for name, objects in images.items()}, finding=finding)


def class_folders(root: Path) -> None:
    for name in ("Bolt/a.jpg", "bolt/b.jpg"):
        sets.image(root / name)


def mask_values(root: Path) -> None:
    mask = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    mask[10:40, 20:50] = 1
    sets.masks(root, {"a.png": mask, "b.png": 2 * mask})


EQUAL = r"'Bolt' \(1 \w+\), 'bolt' \(1 \w+\) differ only in case, blanks or Unicode form"

CASES = [
    *(
        Case(
            "class names that differ in case", name, writer(name, TWO_CASES, ["Bolt", "bolt"]), right(TWO_CASES, EQUAL)
        )
        for name in any_format.FORMATS
    ),
    Case(
        "class names that differ in case",
        "folders",
        class_folders,
        Right({"a.jpg": [], "b.jpg": []}, finding=EQUAL),
        without=CLASS_LABELS,
    ),
    Case(
        "class names that differ in case",
        "masks",
        mask_values,
        Right(
            {"a.png": [("Bolt", BOX)], "b.png": [("bolt", BOX)]},
            finding=EQUAL,
            options={"mask_values": "class", "classes": ["Bolt", "bolt"]},
        ),
    ),
    *(
        Case(
            "class names of two Unicode forms",
            name,
            writer(name, TWO_FORMS, [CAFE, COMBINED]),
            right(TWO_FORMS, r"'cafe\\u0301' \(1 instance\).* differ only in .* --rename .*=café\"$"),
        )
        for name in any_format.FORMATS
    ),
    *(
        Case(
            "class names that differ in blanks",
            name,
            writer(name, BLANKS, ["hex bolt", "hex  bolt"]),
            right(BLANKS, r"'hex  bolt' \(1 instance\).* differ only in .* --rename \"hex  bolt=hex bolt\"$"),
        )
        for name in any_format.FORMATS
    ),
    *(
        Case(
            "a class that means ignore",
            name,
            writer(name, IGNORED, ["__ignore__", "bolt", "nut"]),
            right(IGNORED, r"'__ignore__' \(1 instance\): usually no class.* --classes bolt,nut$"),
        )
        for name in any_format.FORMATS
    ),
    *(
        Case(
            "background in the class list",
            name,
            writer(name, BOLTS, ["background", "bolt"]),
            right(BOLTS, r"'background' \(0 instances\): usually no class.* --classes bolt$"),
        )
        for name in any_format.WITH_CLASS_LIST
    ),
    *(
        Case(
            "a class without objects",
            name,
            writer(name, BOLTS, ["bolt", "nut"]),
            right(
                BOLTS, r"class 'nut' has no instances, which cannot be learned \(1 of 2 classes\); .* --classes bolt$"
            ),
        )
        for name in any_format.WITH_CLASS_LIST
    ),
]
