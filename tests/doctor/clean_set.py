"""A small clean data set, in COCO and, through ``any_format``, in all formats with boxes, to plant faults in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.real_exports import any_format, sets
from tests.real_exports.any_format import Objects

CLASSES = ["bolt", "nut"]
NAMES = [f"{number:02}.png" for number in range(12)]
BOXES = ((4.0, 6.0, 34.0, 40.0), (44.0, 12.0, 90.0, 60.0))
"""x1, y1, x2, y2 of the bolt and of the nut in each image, of 96 x 72 pixels."""


def objects() -> Objects:
    """The objects of each image; no two images have the same."""
    return {
        name: [
            (label, (x1 + number % 4, y1 + number // 4, x2, y2))
            for label, (x1, y1, x2, y2) in zip(CLASSES, BOXES, strict=True)
        ]
        for number, name in enumerate(NAMES)
    }


def coco(root: Path, *, outlines: bool = True) -> None:
    """Write the clean set as COCO with areas and, unless told otherwise, outlines."""
    any_format.coco(root, objects(), CLASSES)
    with edited(root) as data:
        for annotation in data["annotations"]:
            x, y, width, height = annotation["bbox"]
            annotation["area"] = width * height
            if outlines:
                ring = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotation["segmentation"] = [ring]


def keypoints(root: Path) -> None:
    """Write the clean set as COCO with keypoints."""
    coco(root, outlines=False)
    with edited(root) as data:
        for category in data["categories"]:
            category.update(keypoints=["head", "end"], skeleton=[])
        for annotation in data["annotations"]:
            x, y, width, height = annotation["bbox"]
            annotation["keypoints"] = [x + 5, y + 5, 2, x + width - 5, y + height - 5, 2]
            annotation["num_keypoints"] = 2


def written(root: Path, format: str) -> None:
    """Write the clean set in a format: "coco", "boxes" (COCO without outlines), "keypoints", "folders", or one of
    ``any_format.FORMATS``."""
    if format == "coco":
        coco(root)
    elif format == "boxes":
        coco(root, outlines=False)
    elif format == "keypoints":
        keypoints(root)
    elif format == "folders":
        for number, name in enumerate(NAMES):
            sets.image(root / CLASSES[number % 2] / name)
    else:
        any_format.FORMATS[format](root, objects(), CLASSES)


@contextmanager
def edited(root: Path) -> Iterator[dict[str, Any]]:
    """The content of the COCO file, which is written again at the end of the block."""
    file = root / "annotations.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    yield data
    file.write_text(json.dumps(data), encoding="utf-8")


def replaced(file: Path, old: str, new: str, count: int = -1) -> None:
    """Replace a text in a file, which must contain it."""
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, count), encoding="utf-8")


def pixels(path: Path, values: Any) -> None:
    """Write pixels [H, W, 3]."""
    assert cv2.imwrite(str(path), np.asarray(values, np.uint8))


def noise(height: int = sets.HEIGHT, width: int = sets.WIDTH, seed: int = 7) -> Any:
    """Random pixels uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def rotated_jpeg(path: Path, height: int, width: int, orientation: int) -> None:
    """Write a JPEG of random pixels with an EXIF orientation."""
    image = Image.fromarray(noise(height, width))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
