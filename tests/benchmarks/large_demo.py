"""Make sets of images four times as large as those of the demo set, for the measurements of tiles.

``python -m tests.benchmarks.large_demo data/demo OUTPUT mosaic`` puts 16 images side by side, with objects of the same
size; ``enlarged`` enlarges each image by interpolation.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

FACTOR = 4
CELL = 320
"""Longest side of the images of the demo set."""


class Split:
    """Images and annotations of a new split, in COCO format."""

    def __init__(self, output: Path, name: str) -> None:
        self.output, self.name = output, name
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        (output / name).mkdir(parents=True, exist_ok=True)

    def add_image(self, pixels: np.ndarray) -> None:
        number = len(self.images) + 1
        path = f"{self.name}/{number:04d}.jpg"
        cv2.imwrite(str(self.output / path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
        self.images.append({"id": number, "file_name": path, "width": pixels.shape[1], "height": pixels.shape[0]})

    def add_object(self, mask: np.ndarray, category_id: int, image_id: int) -> None:
        rle = coco_mask.encode(np.asfortranarray(mask))
        segmentation = {"size": list(mask.shape), "counts": rle["counts"].decode()}
        self.annotations.append(
            {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0,
             "bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle)), "segmentation": segmentation}
        )  # fmt: skip

    def write(self, categories: list[dict[str, Any]]) -> None:
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        (self.output / f"instances_{self.name}.json").write_text(json.dumps(content))


def make(source: Path, output: Path, kind: str) -> None:
    for name in ("train", "val"):
        data = json.loads((source / f"instances_{name}.json").read_text())
        parts = [
            (
                cv2.imread(str(source / name / Path(image["file_name"]).name)),
                [(coco_mask.decode(a["segmentation"]), a["category_id"]) for a in data["annotations"]
                 if a["image_id"] == image["id"]],
            )
            for image in data["images"]
        ]  # fmt: skip
        split = Split(output, name)
        (enlarged if kind == "enlarged" else mosaic)(split, parts)
        split.write(data["categories"])


def enlarged(split: Split, parts: list[Any]) -> None:
    for number, (pixels, objects) in enumerate(parts, start=1):
        large = cv2.resize(pixels, None, fx=FACTOR, fy=FACTOR, interpolation=cv2.INTER_CUBIC)
        split.add_image(large)
        for mask, category in objects:
            size = large.shape[1], large.shape[0]
            split.add_object(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), category, number)


def mosaic(split: Split, parts: list[Any]) -> None:
    for number, first in enumerate(range(0, len(parts), FACTOR**2), start=1):
        large = np.full((FACTOR * CELL, FACTOR * CELL, 3), 128, np.uint8)
        for position, (pixels, objects) in enumerate(parts[first : first + FACTOR**2]):
            height, width = pixels.shape[:2]
            y, x = position // FACTOR * CELL, position % FACTOR * CELL
            large[y : y + CELL, x : x + CELL] = np.median(pixels.reshape(-1, 3), axis=0)  # around smaller images
            large[y : y + height, x : x + width] = pixels
            for mask, category in objects:
                whole = np.zeros(large.shape[:2], np.uint8)
                whole[y : y + height, x : x + width] = mask
                split.add_object(whole, category, number)
        split.add_image(large)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
