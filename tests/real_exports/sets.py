"""Write small data sets in every format: images, and the annotations as they are given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np

WIDTH, HEIGHT = 96, 72
Number = float | str


def image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
    """Write a small image of noise, another one for each name, so that no two images are equal."""
    pixels = np.random.default_rng(list(path.name.encode())).integers(0, 255, (height, width, 3), np.uint8)
    return put(path, cv2.imencode(path.suffix, pixels)[1].tobytes())


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def coco(root: Path, images: dict[str, Sequence[dict[str, Any]]], categories: Sequence[str] = ("bolt", "nut")) -> None:
    """COCO: the annotations of each image, to which ids are added; ``category_id`` is 1 unless given."""
    files, annotations = [], []
    for number, (name, items) in enumerate(images.items(), start=1):
        image(root / "images" / name)
        files.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for item in items:
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**ids, **item})
    classes = [{"id": number, "name": name} for number, name in enumerate(categories, start=1)]
    value = {"images": files, "annotations": annotations, "categories": classes}
    put(root / "annotations.json", json.dumps(value))


def voc(root: Path, images: dict[str, Sequence[tuple[str, Sequence[Number]]]]) -> None:
    """Pascal VOC: class and xmin, ymin, xmax, ymax of each object."""
    for name, items in images.items():
        image(root / "JPEGImages" / name)
        text = f"<filename>{escape(name)}</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        for label, box in items:
            sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            corners = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            text += f"<object><name>{escape(label)}</name><bndbox>{corners}</bndbox></object>"
        put(root / "Annotations" / f"{Path(name).stem}.xml", f"<annotation>{text}</annotation>")


def yolo(root: Path, images: dict[str, Sequence[str]], names: Sequence[str] = ("bolt", "nut")) -> None:
    """YOLO: the lines of each image."""
    for name, lines in images.items():
        image(root / "images" / name)
        put(root / "labels" / f"{Path(name).stem}.txt", "".join(f"{line}\n" for line in lines))
    put(root / "data.yaml", f"train: images\nnames: {json.dumps(list(names))}\n")


def cvat(root: Path, images: dict[str, Sequence[str]]) -> None:
    """CVAT for images: the XML elements of each image."""
    text = ""
    for number, (name, items) in enumerate(images.items()):
        image(root / "images" / name)
        size = f'width="{WIDTH}" height="{HEIGHT}"'
        text += f'<image id="{number}" name={quoteattr(name)} {size}>{"".join(items)}</image>'
    put(root / "annotations.xml", f"<annotations><version>1.1</version><meta></meta>{text}</annotations>")


def labelme(root: Path, images: dict[str, Sequence[dict[str, Any]]], **more: Any) -> None:
    """LabelMe: the shapes of each image; ``more`` are other keys of each file."""
    for name, shapes in images.items():
        image(root / name)
        value = {"shapes": list(shapes), "imagePath": name, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}
        put(root / f"{Path(name).stem}.json", json.dumps(value))


def via(root: Path, images: dict[str, Sequence[dict[str, Any]]], **more: Any) -> None:
    """VIA: the regions of each image; with ``more`` (such as _via_attributes) a project."""
    entries = {}
    for name, regions in images.items():
        image(root / name)
        entries[f"{name}1"] = {"filename": name, "size": 1, "regions": list(regions), "file_attributes": {}}
    put(root / "via.json", json.dumps({"_via_img_metadata": entries, **more} if more else entries))


def csv(root: Path, header: str, rows: Sequence[str]) -> None:
    """CSV: rows whose first value is the image."""
    for name in {row.partition(",")[0] for row in rows}:
        image(root / "images" / name)
    put(root / "boxes.csv", "\n".join([header, *rows]) + "\n")


def masks(root: Path, images: dict[str, np.ndarray[Any, Any]]) -> None:
    """A mask folder: the mask of each image."""
    for name, mask in images.items():
        image(root / "images" / name, mask.shape[1], mask.shape[0])
        put(root / "masks" / f"{Path(name).stem}.png", cv2.imencode(".png", mask)[1].tobytes())
