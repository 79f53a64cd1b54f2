"""The shapes of CVAT's XML, one by one."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from detseg.annotations.formats.shared.shapes import LEFT_OUT, ShapeInstance, ellipse_ring, extent_xywh, landmark_box
from detseg.annotations.formats.shared.text_file import finite
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.masks import MAX_PIXELS
from detseg.postprocess import crop_rle
from detseg.structures import RLE

SHAPES = ("box", "polygon", "mask", "ellipse", "skeleton", "points", "polyline", "cuboid", "tag")


def read_shape(
    shape: Element, where: str, size_hw: tuple[int, int] | None, points: tuple[str, ...], notes: RepairLog
) -> ShapeInstance | None:
    """The instance of one shape; None for what is no instance, which is noted.

    Args:
        size_hw: of the image, as the file states it; a mask needs it.
        points: names of the points of skeletons.

    Raises:
        DataError: numbers that are missing or not finite, or run lengths that do not fit.
    """
    kind = str(shape.tag)
    label = attribute(shape, "label").strip()
    where = f"{where} ({kind} {label})"
    if kind not in ("box", "polygon", "mask", "ellipse", "skeleton"):
        notes.add("tag of an image left out" if kind == "tag" else LEFT_OUT, where)
        return None
    made = ShapeInstance(label, where)
    if kind == "box":
        x1, y1, x2, y2 = (number_of(shape.get(name), f"{where}, {name}") for name in ("xtl", "ytl", "xbr", "ybr"))
        made.box_xywh = _around(x1, y1, x2, y2, _rotation(shape, where), where, notes)
    elif kind == "polygon":
        made.rings = [_points(shape, where)]
    elif kind == "ellipse":
        cx, cy, rx, ry = (number_of(shape.get(name), f"{where}, {name}") for name in ("cx", "cy", "rx", "ry"))
        made.rings = [ellipse_ring(cx, cy, rx, ry, _rotation(shape, where))]
    elif kind == "mask":
        made.mask = _mask(shape, where, size_hw)
    else:
        made.keypoints = _skeleton(shape, points, where)
        if not (made.keypoints[:, 2] > 0).any():
            notes.add("skeleton without any point in the image left out", where)
            return None
        made.box_xywh = landmark_box(made.keypoints, where, notes)
    return made


def point_names(root: Element, known: tuple[str, ...], file: str) -> tuple[str, ...]:
    """Names of the points of all skeletons in a file, which must be those of files before (``known``, if any).

    Raises:
        DataError: two skeletons have different points: a table has one set.
    """
    first: dict[str, tuple[str, ...]] = {}
    for label in root.findall("./meta//labels/label"):
        parent = (label.findtext("parent") or "").strip()
        if parent:
            first[parent] = (*first.get(parent, ()), (label.findtext("name") or "").strip())
    for skeleton in root.iter("skeleton"):
        name = skeleton.get("label", "")
        if name not in first:
            first[name] = tuple(point.get("label", "") for point in skeleton.findall("points"))
    for name, points in first.items():
        if known and points != known:
            raise DataError(
                f"{file}: the skeleton {name!r} has the points {', '.join(points)}, another has {', '.join(known)}; "
                "export labels with different skeletons one by one"
            )
        known = points
    return known


def attribute(element: Element, name: str) -> str:
    """An attribute, "" where there is none."""
    return element.get(name) or ""


def number_of(text: str | None, where: str) -> float:
    """A finite number; DataError for anything else."""
    value = finite(text or "")
    if value is None:
        raise DataError(f"{where}: {text!r} is not a finite number; correct it")
    return value


def whole_of(element: Element, name: str, where: str) -> int:
    """An attribute that is a whole number of at least 0; DataError for anything else."""
    value = number_of(element.get(name), f"{where}, {name}")
    if not value.is_integer() or not 0 <= value < 2**53:
        raise DataError(f"{where}, {name}: {value:g} is not a whole number of at least 0; correct it")
    return int(value)


def _points(shape: Element, where: str) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in attribute(shape, "points").split(";") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: points {attribute(shape, 'points')[:60]!r} are not x,y;x,y;...; correct them")
    return [(number_of(x, f"{where}, points"), number_of(y, f"{where}, points")) for x, y in pairs]


def _rotation(shape: Element, where: str) -> float:
    return number_of(shape.get("rotation"), f"{where}, rotation") if shape.get("rotation") else 0.0


def _around(x1: float, y1: float, x2: float, y2: float, degrees: float, where: str, notes: RepairLog) -> list[float]:
    """The upright box around a box that is turned clockwise about its middle."""
    if not degrees % 360:
        return [x1, y1, x2 - x1, y2 - y1]
    notes.add("turned box replaced by the upright box around it", where)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    with np.errstate(over="ignore", invalid="ignore"):  # absurd numbers become infinite and are refused later
        middle = np.array([x1 + x2, y1 + y2]) / 2
        offsets = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - middle
        return extent_xywh(middle + offsets @ np.array([[cos, sin], [-sin, cos]]))


def _mask(shape: Element, where: str, size_hw: tuple[int, int] | None) -> RLE:
    """CVAT's run lengths go row by row inside the mask's box, zeros first."""
    if size_hw is None:
        raise DataError(f"{where}: a mask in an image without width and height; export the task again")
    left, top, width, height = (whole_of(shape, name, where) for name in ("left", "top", "width", "height"))
    if left + width > size_hw[1] or top + height > size_hw[0] or not 0 < size_hw[0] * size_hw[1] <= MAX_PIXELS:
        raise DataError(
            f"{where}: a mask of {width} x {height} at {left}, {top} in an image of {size_hw[1]} x {size_hw[0]} (width "
            "x height); export the task again"
        )
    words = attribute(shape, "rle").split(",")
    if not all(word.strip().isdecimal() and len(word.strip()) <= 10 for word in words):
        raise DataError(f"{where}: rle {attribute(shape, 'rle')[:60]!r} is not a list of run lengths; export again")
    runs = np.array([int(word) for word in words], np.int64)
    if runs.sum() != width * height:
        raise DataError(
            f"{where}: the run lengths add up to {runs.sum()}, the mask's box has {width} x {height} = "
            f"{width * height} pixels; export the task again"
        )
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return crop_rle(pixels.reshape(height, width), top, left, size_hw)


def _skeleton(shape: Element, points: tuple[str, ...], where: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """[P, 3]: visibility 0 outside the image, 1 occluded, 2 visible."""
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
