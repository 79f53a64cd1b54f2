"""Generate data for the comparisons: images of rendered scenes with polygons, and mask outputs of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.masks import segmentation_area
from detseg.runtime.files import write_json
from detseg.runtime.seeds import derive_seed
from detseg.structures import RawPrediction
from detseg.synthetic.scenes import draw_scene

Size = tuple[int, int]
Boxes = npt.NDArray[np.float64]

SIDES = (12.0, 480.0)
"""Range of the square roots of box areas in an image of 800 pixels: from 1/65 of the shorter side, log-uniform. When
the image is scaled to COCO's 480, about a third of the boxes is below COCO's 32 pixels and a third above its 96."""
NAMES = ("cell", "dot", "bar")
VERTICES = 40  # of a polygon; about as many as in a COCO object
JPEG_QUALITY = 90
GRAIN = 4.0
"""Standard deviation of the noise of each channel: an image of 960 x 1280 then has about 0.25 MB, like photographs."""


def scene_set(folder: Path, images: int, size_hw: Size, instances: int, *, seed: int = 0) -> Path:
    """Write JPEGs of rendered scenes and their :func:`scene_annotations` as a COCO file; returns the file's path."""
    ground_truth = scene_annotations(images, size_hw, instances, seed=seed)
    for image in ground_truth["images"]:
        write_image(folder / image["file_name"], size_hw, seed=derive_seed(seed, image["id"]))
    path = folder / "instances.json"
    write_json(path, ground_truth)
    return path


def scene_annotations(images: int, size_hw: Size, instances: int, *, seed: int = 0) -> dict[str, Any]:
    """Return a COCO dictionary with ``instances`` blob-shaped polygons in each image.

    They are not the outlines of the shapes in the scene: only their number and size affect the time.
    """
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    image_entries = []
    for number in range(1, images + 1):
        name = f"scene_{number:04}.jpg"
        image_entries.append({"id": number, "file_name": name, "height": size_hw[0], "width": size_hw[1]})
        for x1, y1, x2, y2 in boxes(rng, instances, size_hw).tolist():
            ring = np.round(_ring(rng, x2 - x1, y2 - y1) + np.array([x1, y1]), 2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(rng.integers(1, 1 + len(NAMES))),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": segmentation_area([ring], size_hw),
                    "iscrowd": 0,
                    "segmentation": [ring.ravel().tolist()],
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return {"images": image_entries, "annotations": annotations, "categories": categories}


def write_image(path: Path, size_hw: Size, *, seed: int) -> None:
    """Write the scene of a seed with camera noise, without which a JPEG would be smaller than a photograph."""
    scene_image = draw_scene(seed, (-(-size_hw[0] // 2), -(-size_hw[1] // 2))).image  # half size: 4 x faster
    pixels = cv2.resize(scene_image, size_hw[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    pixels += GRAIN * np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    cv2.imwrite(str(path), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def boxes(rng: np.random.Generator, count: int, size_hw: Size) -> Boxes:
    """Return random boxes, float64 [count, 4] xyxy, in an image of ``size_hw``; sizes as in COCO, see :data:`SIDES`."""
    limits = np.array(size_hw[::-1], float)
    smallest, largest = (float(np.log(side)) for side in SIDES)
    sides = np.exp(rng.uniform(smallest, largest, count)) * min(size_hw) / 800
    stretch = np.exp(rng.normal(0, 0.3, count))
    box_wh = np.minimum(np.stack([sides * stretch, sides / stretch], axis=1), 0.95 * limits)
    corner = rng.uniform(0, limits - box_wh)
    return np.concatenate([corner, corner + box_wh], axis=1)


def raw_prediction(rng: np.random.Generator, count: int, size_hw: Size) -> RawPrediction:
    """Return ``count`` random detections in an image of ``size_hw``: blobs with soft borders, [count, 28, 28], by
    descending score."""
    edges = np.linspace(-1, 1, 28)
    y, x = np.meshgrid(edges, edges, indexing="ij")
    angle, distance = np.arctan2(y, x), np.hypot(x, y)
    probs = [1 / (1 + np.exp(12 * (distance - _radius(rng, angle)))) for _ in range(count)]
    return RawPrediction(
        boxes(rng, count, size_hw).astype(np.float32),
        rng.integers(1, 1 + len(NAMES), count),
        np.sort(rng.random(count, np.float32))[::-1].copy(),
        np.array(probs, np.float32).reshape(count, 28, 28),
    )


def _ring(rng: np.random.Generator, width: float, height: float) -> npt.NDArray[np.float64]:
    """Return the outline of a blob that fills a box of this size at (0, 0), float64 [VERTICES, 2]."""
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * _radius(rng, angle)[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    ring: npt.NDArray[np.float64] = (points - low) / (high - low) * [width, height]
    return ring


def _radius(rng: np.random.Generator, angle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distance of a blob's border from its centre in each direction, about 0.8."""
    waves = range(1, 6)
    size, phase = rng.normal(0, 0.1, len(waves)), rng.uniform(0, 2 * np.pi, len(waves))
    bumps = sum(a / wave**0.5 * np.cos(wave * angle + p) for wave, a, p in zip(waves, size, phase, strict=True))
    radius: npt.NDArray[np.float64] = np.maximum(0.8 * (1 + bumps), 0.1)
    return radius
