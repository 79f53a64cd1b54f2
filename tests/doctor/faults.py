"""The faults that are planted in the clean set: what must be found, and what is mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.doctor.clean_set import noise, pixels
from tests.doctor.plants import (
    as_jpeg,
    box,
    copied,
    emptied,
    in_splits,
    in_text,
    of_all,
    of_data,
    of_file,
    of_first,
    put,
    removed,
    rotated,
    rounded_coordinates,
    rounded_ids,
    twice_annotated,
    twice_in_text,
    with_class,
    with_copies,
    with_many,
    with_pixels,
    without,
    yolo_lines,
)
from tests.real_exports import sets

UNREADABLE = "data that cannot be read"


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Attributes:
        name: of the test.
        plant: changes the files of the clean set.
        kind: of the finding, or ``UNREADABLE`` if reading refuses the data.
        file: part of the place or message.
        mended: whether ``--fix`` mends it.
        format: of the clean set, see ``clean_set.written``.
    """

    name: str
    plant: Callable[[Path], object]
    kind: str
    file: str
    mended: bool = False
    format: str = "coco"

    @property
    def severity(self) -> str:
        """Of the finding."""
        return "error" if self.kind in (UNREADABLE, "nothing to learn", "corrupt image") else "warning"


BOX_OUTLINE = "box and outline disagree"
REPEATED = "repeated object"
NAMES_EQUAL = "nearly equal class names"
LOST = "lost object"
H, W = sets.HEIGHT, sets.WIDTH
REGION = {
    "shape_attributes": {"name": "rect", "x": 44.0, "y": 12.0, "width": 46.0, "height": 48.0},
    "region_attributes": {"class": "nut"},
}
OBJECTS = [
    Fault("area of 1", of_first(put(area=1.0)), "area far smaller than the box", "00.png, annotation 1", True),
    Fault("area too large", of_first(put(area=5000.0)), "area larger than the box", "00.png, annotation 1", True),
    Fault("area of 1, no outline", of_first(put(area=1.0)), "area far smaller than the box", "00.png", True, "boxes"),
    Fault("object twice", of_data(with_copies), REPEATED, "00.png, annotation 100", True),
    Fault("object four times", of_data(lambda data: with_copies(data, 3)), REPEATED, "annotation 102", True),
    Fault("object nearly twice", of_data(lambda data: with_copies(data, 1, 0.4)), f"nearly {REPEATED}", "00.png"),
    Fault("loose box", of_first(put(bbox=[0, 0, 80, 60])), BOX_OUTLINE, "00.png, annotation 1", True),
    Fault("box elsewhere", of_first(put(bbox=[60, 42, 30, 20])), BOX_OUTLINE, "00.png, annotation 1"),
    Fault("box from the bottom", of_first(box(lambda x, y, w, h: [x, H - y - h, w, h])), BOX_OUTLINE, "00.png", True),
    Fault(
        "box of less than a pixel",
        of_first(put(bbox=[3, 3, 0.4, 20])),
        "box of less than a pixel",
        "00.png",
        False,
        "boxes",
    ),
    Fault("box without width", of_first(put(bbox=[3, 3, 0, 20])), LOST, "annotation 1 (00.png)", True, "boxes"),
    Fault("box outside the image", of_first(put(bbox=[200, 3, 20, 20])), LOST, "(00.png)", True, "boxes"),
    Fault("no box", of_first(without("bbox")), LOST, "(00.png)", True, "boxes"),
    Fault(
        "number that is not finite",
        of_first(put(bbox=[float("nan"), 3, 20, 20])),
        UNREADABLE,
        "annotation",
        False,
        "boxes",
    ),
    Fault("negative area", of_first(put(area=-3.0, bbox=[3, 3, 20, 20])), UNREADABLE, "00.png", False, "boxes"),
    Fault(
        "few outlines",
        lambda root: of_data(lambda d: [a.pop("segmentation") for a in d["annotations"][5:]])(root),
        "instance without a mask",
        "03.png",
    ),
    Fault("RLE of another size", of_first(put(segmentation={"size": [5, 5], "counts": [25]})), UNREADABLE, "00.png"),
    Fault(
        "objects too small",
        of_all(put(bbox=[40, 30, 1.1, 1.1], area=1.21)),
        "small objects",
        "annotations.json",
        False,
        "boxes",
    ),
]
FORMATS_OF_BOXES = [
    Fault(
        "corners as width and height",
        of_all(box(lambda x, y, w, h: [x, y, x + w, y + h])),
        UNREADABLE,
        "annotations.json",
        True,
        "boxes",
    ),
    Fault(
        "corners beside outlines",
        of_all(box(lambda x, y, w, h: [x, y, x + w, y + h])),
        UNREADABLE,
        "annotations.json",
        True,
    ),
    Fault(
        "centres as corners",
        of_all(box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h])),
        UNREADABLE,
        "annotations.json",
        True,
        "boxes",
    ),
    Fault(
        "shares as pixels",
        of_all(box(lambda x, y, w, h: [x / W, y / H, w / W, h / H])),
        UNREADABLE,
        "annotations.json",
        True,
        "boxes",
    ),
    Fault(
        "boxes of larger images",
        of_all(box(lambda x, y, w, h: [3 * x, 3 * y, 3 * w, 3 * h])),
        UNREADABLE,
        "annotations.json",
        False,
        "boxes",
    ),
    Fault(
        "width and height exchanged",
        of_data(lambda d: [i.update(width=H, height=W) for i in d["images"]]),
        UNREADABLE,
        "00.png",
        False,
        "boxes",
    ),
    Fault(
        "size of another image",
        of_data(lambda d: d["images"][0].update(width=200)),
        UNREADABLE,
        "00.png",
        False,
        "boxes",
    ),
    Fault("YOLO corners as centres", yolo_lines(lambda a, b, c, d: (a, b, c, d)), UNREADABLE, "labels", True, "yolo"),
    Fault(
        "YOLO top-left as centre",
        yolo_lines(lambda a, b, c, d: (a, b, c - a, d - b)),
        UNREADABLE,
        "labels",
        True,
        "yolo",
    ),
    Fault(
        "YOLO pixels as shares",
        yolo_lines(lambda a, b, c, d: (a * W, b * H, c * W, d * H)),
        UNREADABLE,
        "labels",
        False,
        "yolo",
    ),
    Fault(
        "rotated by EXIF, stored coordinates",
        rotated(6, is_stored=True),
        "coordinates of another rotation",
        "00.jpg",
        True,
        "boxes",
    ),
    Fault(
        "rotated by EXIF, upright coordinates",
        rotated(6, is_stored=False),
        "coordinates of another rotation",
        "00.jpg",
        True,
        "boxes",
    ),
    Fault(
        "rotated by EXIF 8, stored coordinates",
        rotated(8, is_stored=True),
        "coordinates of another rotation",
        "00.jpg",
        True,
        "boxes",
    ),
    Fault(
        "rotated by EXIF 5, upright coordinates",
        rotated(5, is_stored=False),
        "coordinates of another rotation",
        "00.jpg",
        True,
        "boxes",
    ),
    Fault("coordinates in float16", rounded_coordinates, "rounded to float16", "annotations.json", False, "boxes"),
    Fault("image ids in float16", of_data(rounded_ids), "rounded to float16", "annotations.json"),
]
CLASS_FAULTS = [
    Fault("class in capitals", with_class("Bolt", used=True), NAMES_EQUAL, "annotations.json", True),
    Fault("class with a blank", with_class("bolt ", used=True), NAMES_EQUAL, "annotations.json", True),
    Fault("class with an invisible character", with_class("bolt\u200b", used=True), NAMES_EQUAL, "annotations", True),
    Fault("background without objects", with_class("background"), "background as a class", "annotations.json", True),
    Fault("background with objects", with_class("background", used=True), "background as a class", "annotations.json"),
    Fault("class that is ignored", with_class("__ignore__"), "background as a class", "annotations.json", True),
    Fault("class without objects", with_class("washer"), "class without instances", "annotations.json", True),
    Fault("rare class", of_data(with_many), "rare class", "annotations.json", False, "boxes"),
    Fault("unknown category", of_first(put(category_id=77)), UNREADABLE, "annotation"),
    Fault("all are crowds", of_all(put(iscrowd=1)), "nothing to learn", "annotations.json", False, "boxes"),
    Fault("VOC: class in capitals", in_text("00.xml", "bolt", "BOLT"), NAMES_EQUAL, "data", True, "voc"),
    Fault("CSV: class in capitals", in_text("boxes.csv", '"bolt"', '"Bolt"'), NAMES_EQUAL, "data", True, "csv"),
    Fault(
        "YOLO: class without objects",
        in_text("data.yaml", '"nut"]', '"nut", "cap"]'),
        "class without instances",
        "data",
        True,
        "yolo",
    ),
    Fault("YOLO: unknown class number", in_text("00.txt", "0 ", "7 "), UNREADABLE, "00", False, "yolo"),
]
IMAGE_FAULTS = [
    Fault("truncated PNG", of_file("00.png", lambda data: data[:-3000]), "corrupt image", "00.png", True),
    Fault("truncated JPEG", as_jpeg(lambda data: data[: len(data) // 2]), "corrupt image", "00.jpg", True),
    Fault(
        "damaged JPEG", as_jpeg(lambda data: data[:2000] + b"\xff\xd9" + data[2002:]), "damaged image", "00.jpg", True
    ),
    Fault("empty file", of_file("00.png", lambda data: b""), UNREADABLE, "00.png", True),
    Fault("web page as image", of_file("00.png", lambda data: b"<html>"), UNREADABLE, "00.png", True),
    Fault("VOC: empty file", of_file("00.png", lambda data: b""), UNREADABLE, "00.png", True, "voc"),
    Fault("YOLO: empty file", of_file("00.png", lambda data: b""), UNREADABLE, "00.png", True, "yolo"),
    Fault("CSV: empty file", of_file("00.png", lambda data: b""), UNREADABLE, "00.png", True, "csv"),
    Fault("VIA: empty file", of_file("00.png", lambda data: b""), UNREADABLE, "00.png", True, "via"),
    Fault("constant image", with_pixels(lambda p: p * 0 + 200), "constant image", "00.png"),
    Fault("black image", with_pixels(lambda p: p // 60), "nearly black image", "00.png"),
    Fault("grey image", with_pixels(lambda p: p[..., :1].repeat(3, 2)), "grey image among colour images", "00.png"),
    Fault("image twice", copied("00.png", "05.png"), "repeated image", "05.png"),
    Fault("image in two splits", in_splits, "same image in two splits", "00.png"),
    Fault("image removed", removed("00.png"), UNREADABLE, "00.png", True),
    Fault("VOC: image removed", removed("00.png"), UNREADABLE, "00", True, "voc"),
    Fault("CSV: image removed", removed("00.png"), UNREADABLE, "00.png", True, "csv"),
    Fault("CVAT: image removed", removed("00.png"), UNREADABLE, "00.png", True, "cvat"),
    Fault("images without objects", of_data(emptied(5)), "unlabelled image", "00.png"),
    Fault("no objects at all", of_data(emptied(99)), "nothing to learn", "annotations.json"),
    Fault("two image ids for one file", of_data(twice_annotated), "repeated file", "00.png", True),
    Fault("one image id for two files", of_data(lambda d: d["images"][0].update(id=2)), UNREADABLE, "00.png"),
    Fault(
        "image without keypoints",
        of_data(lambda d: [a.update(keypoints=[0] * 6) for a in d["annotations"][:2]]),
        "image without keypoints",
        "00.png",
        False,
        "keypoints",
    ),
    Fault(
        "folders: truncated image",
        of_file("00.png", lambda data: data[:-3000]),
        "corrupt image",
        "00.png",
        True,
        "folders",
    ),
    Fault(
        "folders: black image",
        lambda root: pixels(root / "bolt" / "00.png", noise() // 60),
        "nearly black image",
        "00.png",
        False,
        "folders",
    ),
    Fault(
        "folders: class in capitals",
        lambda root: sets.image(root / "Bolt" / "x.png"),
        NAMES_EQUAL,
        "data",
        True,
        "folders",
    ),
]
FILE_FAULTS = [
    Fault("JSON that ends early", of_file("annotations.json", lambda data: data[:-9]), UNREADABLE, "annotations.json"),
    Fault("box of three numbers", of_first(put(bbox=[1, 2, 3])), UNREADABLE, "annotations.json"),
    Fault("text as a number", of_first(put(bbox=["a", 2, 3, 4])), UNREADABLE, "annotations.json"),
    Fault(
        "VOC: object twice",
        twice_in_text("00.xml", "<object>", "</object>"),
        REPEATED,
        "00.png, instance 2",
        True,
        "voc",
    ),
    Fault(
        "CVAT: object twice",
        twice_in_text("annotations.xml", "<box", "/>"),
        REPEATED,
        "00.png, instance 2",
        True,
        "cvat",
    ),
    Fault("YOLO: object twice", twice_in_text("00.txt", "0 ", "\n"), REPEATED, "00.png, instance 2", True, "yolo"),
    Fault("CSV: object twice", twice_in_text("boxes.csv", "00.png", "\n"), REPEATED, "00.png, instance 2", True, "csv"),
    Fault(
        "LabelMe: object twice",
        in_text(
            "00.json",
            '"shapes": [',
            '"shapes": [{"label": "nut", "shape_type": "rectangle", "points": [[44.0, 12.0], [90.0, 60.0]]}, ',
        ),
        REPEATED,
        "00.png, instance 3",
        True,
        "labelme",
    ),
    Fault(
        "VIA: object twice",
        in_text("via.json", '"regions": [', f'"regions": [{json.dumps(REGION)}, '),
        REPEATED,
        "00.png, instance 3",
        True,
        "via",
    ),
    Fault("VOC: box without width", in_text("00.xml", "<xmax>34.0", "<xmax>4.0"), LOST, "00.xml", True, "voc"),
    Fault(
        "CSV: box outside the image",
        in_text("boxes.csv", "4.0,6.0,34.0,40.0", "400,6,434,40"),
        LOST,
        "boxes.csv",
        True,
        "csv",
    ),
    Fault("VOC: size of another image", in_text("00.xml", "<width>96", "<width>97"), UNREADABLE, "00", False, "voc"),
    Fault("VOC: text as a number", in_text("00.xml", "<xmax>34.0", "<xmax>x"), UNREADABLE, "00.xml", False, "voc"),
    Fault("CSV: text as a number", in_text("boxes.csv", "34.0", "x"), UNREADABLE, "boxes.csv", False, "csv"),
    Fault("YOLO: line of three numbers", in_text("00.txt", "0 ", "0 1 1\n0 "), UNREADABLE, "00.txt", False, "yolo"),
]
FAULTS = [*OBJECTS, *FORMATS_OF_BOXES, *CLASS_FAULTS, *IMAGE_FAULTS, *FILE_FAULTS]
