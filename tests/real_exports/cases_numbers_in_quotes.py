"""Numbers as text, in lists or missing, and outlines without a list of rings: read, and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.real_exports import sets
from tests.real_exports.case import Case, Right

BOX = ("bolt", (20.0, 20.0, 50.0, 50.0))
TWO = {"1.jpg": [BOX], "2.jpg": [BOX]}
KEEP = {"without_mask": "keep"}
RING = [20, 20, 50, 20, 50, 50, 20, 50]
TEXT_RING = [str(number) for number in RING]
GOOD = {"bbox": [20, 20, 30, 30], "area": 900, "segmentation": [RING]}


def coco(**first: Any) -> Callable[[Path], None]:
    """Two images; the annotation of the first has these values."""
    return lambda root: sets.coco(root, {"1.jpg": [{**GOOD, **first}], "2.jpg": [GOOD]}, ["bolt"])


def coco_export_of_via(root: Path) -> None:
    """Image ids of annotations as text, flat outlines, and no image sizes."""
    sets.coco(root, {name: [{**GOOD, "segmentation": RING}] for name in TWO}, ["bolt"])
    path = root / "annotations.json"
    value = json.loads(path.read_text())
    for image in value["images"]:
        image.update(width=0, height=0)
    for item in value["annotations"]:
        item["image_id"] = str(item["image_id"])
    path.write_text(json.dumps(value))


def voc(root: Path) -> None:
    sets.voc(root, {name: [("bolt", (" 20 ", "20.0", "5e1", "\n50\n"))] for name in TWO})


def yolo(root: Path) -> None:
    center, size = (35 / sets.WIDTH, 35 / sets.HEIGHT), (30 / sets.WIDTH, 30 / sets.HEIGHT)
    line = f" 0.0\t{center[0]}  {center[1]} {size[0]:e} {size[1]} "
    sets.yolo(root, {name: [line] for name in TWO}, ["bolt"])


def cvat(root: Path) -> None:
    box = '<box label="bolt" xtl=" 20 " ytl="20.00" xbr="5e1" ybr="50"/>'
    polygon = '<polygon label="bolt" points="20 , 20; 50.0,20 ;50,50;20,50 ;"/>'
    sets.cvat(root, {"1.jpg": [box], "2.jpg": [polygon]})


def labelme(root: Path) -> None:
    shape = {"label": "bolt", "shape_type": "rectangle", "points": [["20", "20"], [" 50.0 ", 50]]}
    sets.labelme(root, {name: [shape] for name in TWO}, imageHeight="72")


def via(root: Path) -> None:
    rect = {"name": "rect", "x": "20", "y": 20, "width": "30", "height": " 30 "}
    regions = [{"shape_attributes": rect, "region_attributes": {"name": "bolt"}}]
    sets.via(root, dict.fromkeys(TWO, regions))


def csv(root: Path) -> None:
    rows = ['1.jpg,"20"," 20 ",50.0,5e1,"bolt"', '2.jpg, 20,20 ,50,"50",bolt']
    sets.csv(root, "filename,xmin,ymin,xmax,ymax,class", rows)


QUOTES = r"numbers in quotes read \("
CASES = [
    Case(
        "box in quotes", "coco", coco(bbox=["20", "20", " 30 ", "30.0"]), Right(TWO, rf"1 x {QUOTES}annotations.bbox")
    ),
    Case("box as one text", "coco", coco(bbox="[20, 20, 30, 30]"), Right(TWO, rf"1 x {QUOTES}annotations.bbox")),
    Case("area in quotes", "coco", coco(area="900"), Right(TWO, rf"1 x {QUOTES}annotations.area")),
    Case("area in a list", "coco", coco(area=[900]), Right(TWO, r"1 x number in a list read \(annotations.area")),
    Case("crowd in quotes", "coco", coco(iscrowd="0"), Right(TWO, rf"1 x {QUOTES}annotations.iscrowd")),
    Case("crowd false in quotes", "coco", coco(iscrowd="False"), Right(TWO, "in quotes read")),
    Case("crowd false", "coco", coco(iscrowd=False), Right(TWO, masks=2)),
    Case("outline in quotes", "coco", coco(segmentation=[TEXT_RING]), Right(TWO, QUOTES, masks=2)),
    Case("category in quotes", "coco", coco(category_id=" 1 "), Right(TWO, rf"1 x {QUOTES}annotations.category_id")),
    Case("id in quotes", "coco", coco(id="7"), Right(TWO, rf"1 x {QUOTES}annotations.id")),
    Case("id as text", "coco", coco(id="a7"), Right(TWO, "text ids of annotations not used")),
    Case("ids as 1.0", "coco", coco(image_id=1.0, category_id=1.0), Right(TWO)),
    Case("flat outline", "coco", coco(segmentation=RING), Right(TWO, "1 x outline without a list of rings", masks=2)),
    Case(
        "outline of points",
        "coco",
        coco(segmentation=[[20, 20], [50, 20], [50, 50], [20, 50]]),
        Right(TWO, "1 x outline without a list of rings", masks=2),
    ),
    Case("empty box", "coco", coco(bbox=[]), Right(TWO, r"empty value read as missing \(annotations.bbox", masks=2)),
    Case("box null", "coco", coco(bbox=None), Right(TWO, "box of the outline used", masks=2)),
    *(
        Case(
            f"outline {empty!r}",
            "coco",
            coco(segmentation=empty),
            Right(TWO, "empty value read as missing", masks=1, options=KEEP),
        )
        for empty in ("", {})
    ),
    Case("outline null", "coco", coco(segmentation=None), Right(TWO, masks=1, options=KEEP)),
    Case(
        "neither box nor outline",
        "coco",
        coco(bbox=[], segmentation=[], area=0),
        Right({"2.jpg": [BOX]}, "box, outline and keypoints are missing"),
    ),
    Case("coco of via", "coco", coco_export_of_via, Right(TWO, "2 x width or height 0, taken from the image", masks=2)),
    Case("numbers as text", "voc", voc, Right(TWO)),
    Case("numbers as text", "yolo", yolo, Right(TWO)),
    Case("numbers as text", "cvat", cvat, Right(TWO, options=KEEP)),
    Case("numbers as text", "labelme", labelme, Right(TWO, rf"2 x {QUOTES}shapes.points")),
    Case("numbers as text", "via", via, Right(TWO, rf"2 x {QUOTES}regions.shape_attributes.x")),
    Case("numbers as text", "csv", csv, Right(TWO)),
]
