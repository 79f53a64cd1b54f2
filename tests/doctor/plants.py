"""Plant faults in the files of the clean set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.doctor.clean_set import edited, noise, pixels, replaced, rotated_jpeg
from tests.real_exports import sets

Annotation = dict[str, Any]


def of_first(change: Callable[[Annotation], object]) -> Callable[[Path], None]:
    """Change the first annotation, the bolt of 00.png."""

    def plant(root: Path) -> None:
        with edited(root) as data:
            change(data["annotations"][0])

    return plant


def of_all(change: Callable[[Annotation], object]) -> Callable[[Path], None]:
    """Change every annotation."""

    def plant(root: Path) -> None:
        with edited(root) as data:
            for annotation in data["annotations"]:
                change(annotation)

    return plant


def of_data(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the content of the COCO file."""

    def plant(root: Path) -> None:
        with edited(root) as data:
            change(data)

    return plant


def box(function: Callable[[float, float, float, float], list[float]]) -> Callable[[Annotation], None]:
    """Replace the numbers x, y, width, height of a box."""

    def change(annotation: Annotation) -> None:
        annotation["bbox"] = function(*annotation["bbox"])

    return change


def with_copies(data: dict[str, Any], number: int = 1, shift: float = 0.0) -> None:
    first = data["annotations"][0]
    for copy in range(number):
        x, y, width, height = first["bbox"]
        moved = {"bbox": [x + shift, y, width, height], "id": 100 + copy}
        ring = [x + shift, y, x + shift + width, y, x + shift + width, y + height, x + shift, y + height]
        data["annotations"].append({**first, **moved, "segmentation": [ring]})


def with_many(data: dict[str, Any]) -> None:
    """200 small objects of one class, and one of the other."""
    data["annotations"] = data["annotations"][1:2]
    for number in range(204):
        image, place = divmod(number, 17)
        bolt = {"id": 100 + number, "image_id": image + 1, "category_id": 1, "iscrowd": 0}
        data["annotations"].append({**bolt, "bbox": [2 + 5 * place, 2 + place, 4, 4], "area": 16})


def with_class(name: str, *, used: bool = False, as_first: bool = False) -> Callable[[Path], None]:
    """Another class, also of the first object if ``used``."""

    def change(data: dict[str, Any]) -> None:
        data["categories"].append({"id": 3, "name": name})
        if used:
            data["annotations"][0]["category_id"] = 3

    return of_data(change)


def of_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the bytes of an image."""

    def plant(root: Path) -> None:
        (file,) = root.rglob(name)
        file.write_bytes(change(file.read_bytes()))

    return plant


def as_jpeg(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Replace 00.png by a JPEG, and change its bytes."""

    def plant(root: Path) -> None:
        pixels(root / "images" / "00.jpg", noise())
        (root / "images" / "00.png").unlink()
        replaced(root / "annotations.json", "00.png", "00.jpg")
        of_file("00.jpg", change)(root)

    return plant


def with_pixels(function: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda root: pixels(root / "images" / "00.png", function(noise()))


def rotated(orientation: int, *, is_stored: bool) -> Callable[[Path], None]:
    """A JPEG that EXIF rotates, whose box fits only in the frame that its width and height are not of."""

    def plant(root: Path) -> None:
        rotated_jpeg(root / "images" / "00.jpg", sets.HEIGHT, sets.WIDTH, orientation)
        (root / "images" / "00.png").unlink()
        with edited(root) as data:
            width, height = (sets.HEIGHT, sets.WIDTH) if is_stored else (sets.WIDTH, sets.HEIGHT)
            data["images"][0].update(file_name="00.jpg", width=width, height=height)
            data["annotations"][0]["bbox"] = [60, 10, 30, 40] if is_stored else [10, 60, 40, 30]
            data["annotations"][1]["bbox"] = [10, 10, 30, 40]
            for annotation in data["annotations"][:2]:
                annotation["area"] = 1200

    return plant


def in_splits(root: Path) -> None:
    """Two COCO files, with one image in both splits."""
    data = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    (root / "annotations.json").unlink()
    for split, wanted in (("train", range(1, 10)), ("val", range(10, 13))):
        part = {
            **data,
            "images": [image for image in data["images"] if image["id"] in wanted],
            "annotations": [each for each in data["annotations"] if each["image_id"] in wanted],
        }
        for image in part["images"]:
            source, target = root / "images" / image["file_name"], root / split / image["file_name"]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes())
            source.unlink()
        (root / f"instances_{split}.json").write_text(json.dumps(part), encoding="utf-8")
    (root / "val" / "09.png").write_bytes((root / "train" / "00.png").read_bytes())


def rounded_coordinates(root: Path) -> None:
    """Images of 3,000 pixels, whose coordinates went through float16."""
    with edited(root) as data:
        data["images"], data["annotations"] = data["images"][:4], []
        for number, image in enumerate(data["images"]):
            pixels(root / "images" / image["file_name"], noise(40, 3000, number))
            image.update(width=3000, height=40)
            for place in range(6):
                x = float(np.float16(2100 + 131 * place + number))
                values = {"id": 10 * number + place + 1, "image_id": image["id"], "category_id": place % 2 + 1}
                data["annotations"].append({**values, "bbox": [x, 3.0, 100.0, 30.0], "iscrowd": 0})


def rounded_ids(data: dict[str, Any]) -> None:
    for image in data["images"]:
        image["id"] = 2000 + 100 * image["id"]
    for annotation in data["annotations"]:
        annotation["image_id"] = 2000 + 100 * annotation["image_id"]


def emptied(number: int) -> Callable[[dict[str, Any]], None]:
    """Remove the objects of the first images."""

    def change(data: dict[str, Any]) -> None:
        data["annotations"] = [each for each in data["annotations"] if each["image_id"] > number]

    return change


def twice_annotated(data: dict[str, Any]) -> None:
    """Half of the objects of 00.png are under a second image id."""
    data["images"].append({**data["images"][0], "id": 99})
    data["annotations"][1]["image_id"] = 99


def without(key: str) -> Callable[[Annotation], object]:
    return lambda annotation: annotation.pop(key, None)


def put(**values: Any) -> Callable[[Annotation], object]:
    return lambda annotation: annotation.update(values)


def twice_in_text(file: str, start: str, end: str) -> Callable[[Path], None]:
    """Repeat the first text from ``start`` to ``end`` in a file."""

    def plant(root: Path) -> None:
        (path,) = root.rglob(file)
        text = path.read_text(encoding="utf-8")
        first = text[text.index(start) :]
        first = first[: first.index(end) + len(end)]
        path.write_text(text.replace(first, first + first, 1), encoding="utf-8")

    return plant


def yolo_lines(function: Callable[[float, float, float, float], tuple[float, ...]]) -> Callable[[Path], None]:
    """Write other numbers in all lines; the arguments are x1, y1, x2, y2 as shares."""

    def plant(root: Path) -> None:
        for file in sorted((root / "labels").glob("*.txt")):
            lines = []
            for line in file.read_text(encoding="utf-8").splitlines():
                label, x, y, width, height = (float(word) for word in line.split())
                numbers = function(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                lines.append(" ".join([str(int(label)), *map(str, numbers)]))
            file.write_text("\n".join(lines), encoding="utf-8")

    return plant


def in_text(file: str, old: str, new: str, count: int = 1) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        (path,) = root.rglob(file)
        replaced(path, old, new, count)

    return plant


def removed(name: str) -> Callable[[Path], None]:
    return lambda root: next(root.rglob(name)).unlink()


def copied(name: str, to: str) -> Callable[[Path], None]:
    return lambda root: next(root.rglob(to)).write_bytes(next(root.rglob(name)).read_bytes())
