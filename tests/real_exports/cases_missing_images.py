"""One of three images has no file: an error that states the number and the option, which leaves it out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.real_exports import sets
from tests.real_exports.case import Case, Refused, Right

BOX = ("bolt", (20.0, 20.0, 50.0, 50.0))
NAMES = ("1.jpg", "2.jpg", "3.jpg")
LEFT = {"1.jpg": [BOX], "3.jpg": [BOX]}


def without(write: Callable[[Path], object], missing: str = "2.jpg") -> Callable[[Path], None]:
    """Write a set, and remove one of its images."""

    def write_all(root: Path) -> None:
        write(root)
        (path,) = root.rglob(missing)
        path.unlink()

    return write_all


def coco(root: Path) -> None:
    sets.coco(root, {name: [{"bbox": [20, 20, 30, 30], "area": 900}] for name in NAMES}, ["bolt"])


def voc(root: Path) -> None:
    sets.voc(root, {name: [("bolt", BOX[1])] for name in NAMES})


def yolo(root: Path) -> None:
    line = f"0 {35 / sets.WIDTH} {35 / sets.HEIGHT} {30 / sets.WIDTH} {30 / sets.HEIGHT}"
    sets.yolo(root, {name: [line] for name in NAMES}, ["bolt"])


def yolo_lists(root: Path) -> None:
    yolo(root)
    sets.put(root / "train.txt", "".join(f"images/{name}\n" for name in NAMES))
    sets.put(root / "data.yaml", "train: train.txt\nnames: [bolt]\n")
    (root / "labels/2.txt").unlink()


def cvat(root: Path) -> None:
    sets.cvat(root, {name: ['<box label="bolt" xtl="20" ytl="20" xbr="50" ybr="50"/>'] for name in NAMES})


def labelme(root: Path) -> None:
    shape = {"label": "bolt", "shape_type": "rectangle", "points": [[20, 20], [50, 50]]}
    sets.labelme(root, {name: [shape] for name in NAMES})


def via(root: Path) -> None:
    rect = {"name": "rect", "x": 20, "y": 20, "width": 30, "height": 30}
    sets.via(root, {name: [{"shape_attributes": rect, "region_attributes": {"name": "bolt"}}] for name in NAMES})


def csv(root: Path) -> None:
    sets.csv(root, "filename,xmin,ymin,xmax,ymax,class", [f"{name},20,20,50,50,bolt" for name in NAMES])


def refused(message: str, note: str = "1 x image without a file left out") -> Refused:
    return Refused(f"{message}.*pass --missing-images drop", Right(LEFT, note, options={"missing_images": "drop"}))


IMAGES = r"1 of 3 images are not in .*: 2.jpg; "
FILES = r"1 of 3 annotation files have no image: .*2\.(xml|txt); "
CASES = [
    Case("missing image", "coco", without(coco), refused(IMAGES)),
    Case("missing image", "voc", without(voc), refused(FILES)),
    Case("missing image", "yolo", without(yolo), refused(FILES)),
    Case(
        "missing image in a list",
        "yolo",
        without(yolo_lists),
        refused("train.txt: 1 of 3 images are not in .*: images/2.jpg", "1 x listed image without a file"),
    ),
    Case("missing image", "cvat", without(cvat), refused(IMAGES)),
    Case("missing image", "labelme", without(labelme), refused(IMAGES)),
    Case("missing image", "via", without(via), refused(IMAGES)),
    Case("missing image", "csv", without(csv), refused(IMAGES)),
]
