"""Sets of one image in every format, whose annotation names the image in any way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import cv2
import numpy as np

PNG = cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes()


def put(path: Path, content: str | bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def coco(root: Path, stated: str, stored: str) -> None:
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
    image = {"id": 1, "file_name": stated, "height": 20, "width": 30}
    value = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "bolt"}]}
    put(root / "result.json", json.dumps(value))


def voc(root: Path, stated: str, stored: str) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6</ymax></bndbox>"
    size = "<size><width>30</width><height>20</height><depth>3</depth></size>"
    text = f"<filename>{escape(stated)}</filename>{size}<object><name>bolt</name>{box}</object>"
    put(root / "Annotations/item.xml", f"<annotation>{text}</annotation>")


def yolo(root: Path, stated: str, stored: str) -> None:
    put(root / "data.yaml", "names: [bolt]\ntrain: train.txt\n")
    put(root / "train.txt", f"{stated}\n")
    put(root / f"labels/{Path(stored).stem}.txt", "0 0.5 0.5 0.25 0.25\n")


def cvat(root: Path, stated: str, stored: str) -> None:
    box = '<box label="bolt" xtl="1" ytl="2" xbr="4" ybr="6"/>'
    image = f'<image id="0" name={quoteattr(stated)} width="30" height="20">{box}</image>'
    put(root / "annotations.xml", f"<annotations><version>1.1</version><meta></meta>{image}</annotations>")


def labelme(root: Path, stated: str, stored: str) -> None:
    shape = {"label": "bolt", "points": [[1, 2], [4, 6]], "shape_type": "rectangle"}
    value = {"shapes": [shape], "imagePath": stated, "imageHeight": 20, "imageWidth": 30}
    put(root / "item.json", json.dumps(value))


def via(root: Path, stated: str, stored: str) -> None:
    rect = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    region = {"shape_attributes": rect, "region_attributes": {"class": "bolt"}}
    entry = {"filename": stated, "size": 1, "regions": [region], "file_attributes": {}}
    put(root / "via.json", json.dumps({"key": entry}))


def csv_boxes(root: Path, stated: str, stored: str) -> None:
    put(root / "boxes.csv", f'filename,xmin,ymin,xmax,ymax,class\n"{stated}",1,2,4,6,bolt\n')


def csv_landmarks(root: Path, stated: str, stored: str) -> None:
    put(root / "points.csv", f'filename,a_x,a_y,b_x,b_y,class\n"{stated}",1,2,15,16,bolt\n')


def csv_labels(root: Path, stated: str, stored: str) -> None:
    put(root / "labels.csv", f'filename,class\n"{stated}",bolt\n')


def via_3(root: Path, stated: str, stored: str) -> None:
    file = {"fid": 1, "fname": stated, "type": 2, "loc": 1, "src": ""}
    attribute = {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 1, "options": {}}
    value = {
        "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1"]},
        "config": {},
        "attribute": {"1": attribute},
        "file": {"1": file},
        "view": {"1": {"fid_list": [1]}},
        "metadata": {"1_a": {"vid": "1", "z": [], "xy": [2, 1, 2, 3, 4], "av": {"1": "bolt"}}},
    }
    put(root / "via.json", json.dumps(value))


def label_studio(root: Path, stated: str, stored: str) -> None:
    box = {"x": 100 / 30, "y": 10, "width": 10, "height": 20, "rotation": 0, "rectanglelabels": ["bolt"]}
    result = {"type": "rectanglelabels", "value": box, "original_width": 30, "original_height": 20}
    put(root / "project.json", json.dumps([{"data": {"image": stated}, "annotations": [{"result": [result]}]}]))


def label_studio_min(root: Path, stated: str, stored: str) -> None:
    box = {"x": 100 / 30, "y": 10, "width": 10, "height": 20, "rotation": 0, "rectanglelabels": ["bolt"]}
    regions = [{**box, "original_width": 30, "original_height": 20}]
    row = {"image": stated, "id": 1, "label": regions, "annotator": 1, "annotation_id": 1, "lead_time": 2.5}
    put(root / "project.json", json.dumps([row]))


def createml(root: Path, stated: str, stored: str) -> None:
    box = {"label": "bolt", "coordinates": {"x": 2.5, "y": 4, "width": 3, "height": 4}}
    put(root / "createml.json", json.dumps([{"image": stated, "annotations": [box]}]))


ONE_IMAGE: dict[str, Callable[[Path, str, str], None]] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "cvat": cvat,
    "labelme": labelme,
    "via": via,
    "via 3": via_3,
    "labelstudio": label_studio,
    "labelstudio min": label_studio_min,
    "createml": createml,
    "csv boxes": csv_boxes,
    "csv landmarks": csv_landmarks,
    "csv labels": csv_labels,
}
"""Format -> function that writes the annotations of an image; the image is called ``stated`` in them, and ``stored`` is
where it is. Formats without image names in the annotations (masks, folders, arrays,
Supervisely) are missing."""
