"""Parse the shapes of CVAT XML: boxes, polygons, ellipses, masks, skeletons."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from detseg.annotations.formats.cvat.mask_runs import row_runs_rle
from detseg.annotations.formats.shared.shapes import (
    UNSUPPORTED_SHAPE,
    ShapeInstance,
    ellipse_rings,
)
from detseg.annotations.formats.shared.text_file import parse_finite
from detseg.annotations.instance_box import ROTATED_BOX, landmark_box, rotated_box
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.masks import MAX_PIXELS
from detseg.structures import RLE

SHAPES = ("box", "polygon", "mask", "ellipse", "skeleton", "points", "polyline", "cuboid", "tag")


def read_shape(
    shape: Element, where: str, size_hw: tuple[int, int] | None, points: tuple[str, ...], notes: RepairLog
) -> ShapeInstance | None:
    """The instance of one shape; None for a shape that is not an instance, with a note.

    Args:
        size_hw: image size stated in the file; required for a mask.
        points: names of the skeleton points.

    Raises:
        DataError: numbers that are missing or not finite, or run lengths that do not match the mask.
    """
    kind = str(shape.tag)
    label = attribute(shape, "label").strip()
    where = f"{where} ({kind} {label})"
    if kind not in ("box", "polygon", "mask", "ellipse", "skeleton"):
        notes.add("tag of an image left out" if kind == "tag" else UNSUPPORTED_SHAPE, where)
        return None
    instance = ShapeInstance(label, where)
    if kind == "box":
        x1, y1, x2, y2 = (parse_number(shape.get(name), f"{where}, {name}") for name in ("xtl", "ytl", "xbr", "ybr"))
        instance.box_xywh, rotation = [x1, y1, x2 - x1, y2 - y1], _rotation(shape, where)
        if rotation % 360:
            notes.add(ROTATED_BOX, where)
            instance.box_xywh = rotated_box((x1, y1, x2 - x1, y2 - y1), rotation)
    elif kind == "polygon":
        instance.rings = [_points(shape, where)]
    elif kind == "ellipse":
        cx, cy, rx, ry = (parse_number(shape.get(name), f"{where}, {name}") for name in ("cx", "cy", "rx", "ry"))
        instance.rings = [*ellipse_rings(cx, cy, rx, ry, _rotation(shape, where), where, notes)]
    elif kind == "mask":
        instance.mask = _mask(shape, where, size_hw)
    else:
        instance.keypoints = _skeleton(shape, points, where)
        if not (instance.keypoints[:, 2] > 0).any():
            notes.add("skeleton without points in the image left out", where)
            return None
        instance.box_xywh = landmark_box(instance.keypoints, where, notes)
    return instance


def read_point_names(root: Element, previous: tuple[str, ...], file: str) -> tuple[str, ...]:
    """Names of the skeleton points of a file, which must be the same in all skeletons and files (``previous``, if any).

    Raises:
        DataError: two skeletons have different points; a table has one keypoint schema.
    """
    points_of: dict[str, tuple[str, ...]] = {}
    for label in root.findall("./meta//labels/label"):
        parent = (label.findtext("parent") or "").strip()
        if parent:
            points_of[parent] = (*points_of.get(parent, ()), (label.findtext("name") or "").strip())
    for skeleton in root.iter("skeleton"):
        name = skeleton.get("label", "")
        if name not in points_of:
            points_of[name] = tuple(point.get("label", "") for point in skeleton.findall("points"))
    for name, points in points_of.items():
        if previous and points != previous:
            raise DataError(
                f"{file}: the skeleton {name!r} has the points {', '.join(points)}, another has {', '.join(previous)}; "
                "export labels with different skeletons separately"
            )
        previous = points
    return previous


def attribute(element: Element, name: str) -> str:
    """The value of an attribute; "" if it is missing."""
    return element.get(name) or ""


def parse_number(text: str | None, where: str) -> float:
    """``text`` as a finite number; DataError for anything else."""
    value = parse_finite(text or "")
    if value is None:
        raise DataError(f"{where}: {text!r} is not a finite number; correct it")
    return value


def parse_whole_number(element: Element, name: str, where: str) -> int:
    """An attribute as a whole number of at least 0; DataError for anything else."""
    value = parse_number(element.get(name), f"{where}, {name}")
    if not value.is_integer() or not 0 <= value < 2**53:
        raise DataError(f"{where}, {name}: {value:g} is not a whole number of at least 0; correct it")
    return int(value)


def _points(shape: Element, where: str) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in attribute(shape, "points").split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: points {attribute(shape, 'points')[:60]!r} are not x,y;x,y;...; correct them")
    return [(parse_number(x, f"{where}, points"), parse_number(y, f"{where}, points")) for x, y in pairs]


def _rotation(shape: Element, where: str) -> float:
    return parse_number(shape.get("rotation"), f"{where}, rotation") if shape.get("rotation") else 0.0


def _mask(shape: Element, where: str, size_hw: tuple[int, int] | None) -> RLE:
    """Decode a mask: CVAT's run lengths are row-major inside the box of the mask, zeros first."""
    if size_hw is None:
        raise DataError(f"{where}: a mask in an image without width and height; export the task again")
    left, top, width, height = (parse_whole_number(shape, name, where) for name in ("left", "top", "width", "height"))
    if left + width > size_hw[1] or top + height > size_hw[0] or not 0 < size_hw[0] * size_hw[1] <= MAX_PIXELS:
        raise DataError(
            f"{where}: a mask of {width} x {height} at {left}, {top} in an image of {size_hw[1]} x {size_hw[0]} (width "
            "x height); export the task again"
        )
    lengths = attribute(shape, "rle").split(",")
    if not all(text.strip().isdecimal() and len(text.strip()) <= 10 for text in lengths):
        raise DataError(f"{where}: rle {attribute(shape, 'rle')[:60]!r} is not a list of run lengths; export again")
    runs = np.array([int(text) for text in lengths], np.int64)
    if runs.sum() != width * height:
        raise DataError(
            f"{where}: the run lengths add up to {runs.sum()}, the box of the mask has {width} x {height} = "
            f"{width * height} pixels; export the task again"
        )
    return row_runs_rle(runs, top, left, (height, width), size_hw)


def _skeleton(shape: Element, points: tuple[str, ...], where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Keypoints float64 [P, 3]: visibility 0 outside the image, 1 occluded, 2 visible."""
    keypoints = np.zeros((len(points), 3))
    for point in shape.findall("points"):
        name = point.get("label", "")
        if name not in points:
            raise DataError(f"{where}: point {name!r} is not among {', '.join(points)}; export the task again")
        xy = _points(point, f"{where}, point {name}")
        if attribute(point, "outside") == "1" or len(xy) != 1:
            continue
        keypoints[points.index(name)] = (*xy[0], 1 if attribute(point, "occluded") == "1" else 2)
    return keypoints
