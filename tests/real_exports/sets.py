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


def labelstudio(root: Path, images: dict[str, Sequence[dict[str, Any]]], **more: Any) -> None:
    """Label Studio: the results of each image, to which the size is added; ``more`` are keys of each annotation."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    tasks = []
    for number, (name, results) in enumerate(images.items(), start=1):
        image(root / "images" / name)
        found = [{**size, "id": f"r{row}", **result} for row, result in enumerate(results)]
        annotation = {"id": number, "was_cancelled": False, "ground_truth": False, "result": found, **more}
        tasks.append({"id": number, "data": {"image": f"/data/upload/1/{name}"}, "annotations": [annotation]})
    put(root / "project-1.json", json.dumps(tasks))


def rectangle(label: str, x1: float, y1: float, x2: float, y2: float, **more: Any) -> dict[str, Any]:
    """A result of Label Studio: a rectangle with its corners in pixels."""
    box = {"x": x1 / WIDTH * 100, "y": y1 / HEIGHT * 100}
    sides = {"width": (x2 - x1) / WIDTH * 100, "height": (y2 - y1) / HEIGHT * 100}
    value = {**box, **sides, "rotation": 0, "rectanglelabels": [label], **more}
    return {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}


def createml(root: Path, images: dict[str, Sequence[Any]]) -> None:
    """Create ML: the annotations of each image."""
    for name in images:
        image(root / name)
    entries = [{"image": name, "annotations": list(items)} for name, items in images.items()]
    put(root / "annotations.json", json.dumps(entries))


def supervisely(
    root: Path,
    images: dict[str, Sequence[dict[str, Any]]],
    classes: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> None:
    """Supervisely: the objects of each image, whose name may begin with its dataset; ``more`` are keys of each file."""
    for name, items in images.items():
        dataset, _, file = name.rpartition("/")
        folder = root / (dataset or "ds0")
        image(folder / "img" / file)
        value = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": list(items)}
        put(folder / f"ann/{file}.json", json.dumps({**value, **more}))
    if classes:
        put(root / "meta.json", json.dumps({"classes": list(classes), "tags": [], "projectType": "images"}))


def figure(label: str, kind: str, *exterior: tuple[float, float], **more: Any) -> dict[str, Any]:
    """An object of Supervisely."""
    points = {"exterior": exterior, "interior": more.pop("interior", [])}
    return {"classTitle": label, "geometryType": kind, "points": points, "tags": [], **more}


def via_3(root: Path, images: dict[str, Sequence[tuple[Any, Sequence[float]]]], **more: Any) -> None:
    """VIA 3: the option of the attribute "kind" and the ``xy`` of each region; ``more`` are other top-level keys."""
    files, views, metadata = {}, {}, {}
    for number, (name, regions) in enumerate(images.items(), start=1):
        image(root / name)
        files[str(number)] = {"fid": number, "fname": name, "type": 2, "loc": 1, "src": ""}
        views[str(number)] = {"fid_list": [number]}
        for row, (option, xy) in enumerate(regions):
            metadata[f"{number}_{row}"] = {"vid": str(number), "flg": 0, "z": [], "xy": xy, "av": {"1": option}}
    attribute = {"aname": "class", "anchor_id": "FILE1_Z0_XY1", "type": 4, "options": {"0": "bolt", "1": "nut"}}
    project = {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": list(views)}
    value = {"project": project, "config": {}, "attribute": {"1": attribute}, "file": files, "view": views}
    put(root / "via3.json", json.dumps({**value, "metadata": metadata, **more}))


def arrays(root: Path, images: dict[str, dict[str, Any]]) -> None:
    """Arrays: for each image (without suffix) its annotations by their kind."""
    for name, targets in images.items():
        path = image(root / f"{name}.png")
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        path.unlink()
        np.save(path.with_suffix(".npy"), pixels)
        for kind, values in targets.items():
            np.save(path.with_suffix(f".{kind}.npy"), np.asarray(values))
