"""COCO ids that are texts; the other formats have no ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Right
from tests.real_exports.cases_numbers_in_quotes import GOOD, TWO


def renamed(images: dict[int, Any], categories: dict[int, Any]) -> Callable[[Path], None]:
    """Two images with these ids of images and categories instead of 1 and 2."""

    def write(root: Path) -> None:
        sets.coco(root, {"1.jpg": [GOOD], "2.jpg": [GOOD]}, ["bolt", "nut"])
        path = root / "annotations.json"
        value = json.loads(path.read_text())
        for image in value["images"]:
            image["id"] = images.get(image["id"], image["id"])
        for category in value["categories"]:
            category["id"] = categories.get(category["id"], category["id"])
        for item in value["annotations"]:
            item["image_id"] = images.get(item["image_id"], item["image_id"])
            item["category_id"] = categories.get(item["category_id"], item["category_id"])
        path.write_text(json.dumps(value))

    return write


CATEGORIES = r"1 x text ids numbered \(categories.id"
NAMES = {1: "img_001", 2: "img_002"}
IMAGES = r"1 x text ids numbered \(images.id\)"
CASES = [
    Case("image ids as text", "coco", renamed(NAMES, {}), Right(TWO, IMAGES)),
    Case(
        "image ids in quotes",
        "coco",
        renamed({1: "1", 2: "2"}, {}),
        Right(TWO, r"2 x numbers in quotes read"),
    ),
    Case("padded image ids", "coco", renamed({1: "007", 2: "008"}, {}), Right(TWO, IMAGES)),
    Case("some image ids as text", "coco", renamed({2: "b"}, {}), Right(TWO, IMAGES)),
    Case("category ids as text", "coco", renamed({}, {1: "c-bolt", 2: "c-nut"}), Right(TWO, CATEGORIES)),
    Case("all ids as text", "coco", renamed(NAMES, {1: "c-bolt", 2: "c-nut"}), Right(TWO, CATEGORIES)),
]
