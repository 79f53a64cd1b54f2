"""Masks whose values are not clean: rims and grey values never become objects."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.real_exports import sets
from tests.real_exports.case import Case, Right

DISCS = [("object", (10.0, 20.0, 31.0, 41.0)), ("object", (60.0, 30.0, 81.0, 51.0))]


def blurred(root: Path) -> None:
    mask = np.zeros((sets.HEIGHT, sets.WIDTH), np.uint8)
    for _, (x1, y1, x2, y2) in DISCS:
        cv2.circle(mask, (int(x1 + x2) // 2, int(y1 + y2) // 2), 10, 255, -1)
    sets.masks(root, {"a.png": cv2.GaussianBlur(mask, (3, 3), 0), "b.png": cv2.GaussianBlur(mask, (3, 3), 0)})


CASES = [
    Case("grey rims", "masks", blurred, Right({"a.png": DISCS, "b.png": DISCS}, note="divided at 128", masks=4)),
]
