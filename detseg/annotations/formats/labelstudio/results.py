"""Convert the results of one Label Studio annotation: regions to shapes, keypoints of their objects, and choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.annotations.builder import MAX_SIDE
from detseg.annotations.formats.labelstudio.brush import brush_rle
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import UNSUPPORTED_SHAPE, ShapeInstance, ellipse_rings
from detseg.annotations.instance_box import ROTATED_BOX, extent_xywh
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

PERCENT = 100.0
_LABELS = "labels"
_DRAWN = ("rectangle", "polygon", "brush", "ellipse", "keypoint")
_OTHER_SHAPES = ("vector", "bitmask", "videorectangle", "cube", "cuboid", "magicwand")


class Value(msgspec.Struct):
    """What was drawn or chosen; lengths are percent of the image's width or height."""

    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    rotation: float | None = None
    radiusX: float | None = None
    radiusY: float | None = None
    points: list[tuple[float, float]] = []
    rle: list[int] = []
    choices: list[str] | str | None = None
    taxonomy: list[Any] | None = None
    labels: list[str] | None = None
    rectanglelabels: list[str] | None = None
    polygonlabels: list[str] | None = None
    brushlabels: list[str] | None = None
    ellipselabels: list[str] | None = None
    keypointlabels: list[str] | None = None


class Region(msgspec.Struct):
    """One result. Results with the same ``id`` are about the same region: its shape, its label, its text."""

    value: Value | None = None
    type: str = ""
    id: str | int | None = None
    from_name: str = ""
    parentID: str | int | None = None
    original_width: float | None = None
    original_height: float | None = None
    image_rotation: float | None = None
    item_index: int | None = None


class Point(NamedTuple):
    """A keypoint: its name, the region that it belongs to (None if it is alone), x and y in ``unit``, and where."""

    name: str
    parent: str | int | None
    x: float
    y: float
    unit: float
    where: str


@dataclass
class Results:
    """The results of one annotation.

    Attributes:
        size_hw: height and width that the results state for the image; None if none does.
        instances: the objects, and ``ids`` their regions.
        lost: class of each object that was left out, with a note.
        points: keypoints.
        fields: name of a control -> the choices of the whole image.
    """

    size_hw: tuple[int, int] | None = None
    instances: list[ShapeInstance] = field(default_factory=list)
    ids: list[str | int | None] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_results(regions: Sequence[Region], where: str, notes: RepairLog, problems: Problems) -> Results:
    """Convert the results of one annotation.

    Args:
        regions: in the order of the file.
        where: file and task, the beginning of messages.
        notes: what is left out is noted here.
        problems: DataErrors of single regions are collected here.
    """
    results = Results()
    groups: dict[Any, list[Region]] = {}
    for number, region in enumerate(regions):
        groups.setdefault(number if region.id is None else (region.id,), []).append(region)
    for number, group in enumerate(groups.values(), 1):
        with problems.collect():
            _read_group(group, f"{where}, region {number}", results, notes)
    return results


def with_keypoints(results: Results, names: Sequence[str], notes: RepairLog) -> None:
    """Give each object the keypoints whose parent it is; points of none are left out, as lost objects.

    Args:
        names: of all keypoints, in the order of the schema.
    """
    rows = {id: row for row, id in enumerate(results.ids) if id is not None}
    for point in results.points:
        row = rows.get(point.parent) if point.parent is not None else None
        if row is None:
            notes.add("keypoint without a parent region left out", point.where)
            results.lost.append("")
            continue
        instance = results.instances[row]
        if instance.keypoints is None:
            instance.keypoints = np.zeros((len(names), 3))
        target = instance.keypoints[names.index(point.name)]
        if target[2]:
            raise DataError(
                f"{point.where}: {point.name} occurs twice in one object; remove one of them, or correct its label"
            )
        if instance.unit != point.unit:
            raise DataError(
                f"{point.where}: only one of the keypoint and its parent has original_width and original_height; "
                "export the project again"
            )
        target[:] = point.x, point.y, 2


def _read_group(group: Sequence[Region], where: str, results: Results, notes: RepairLog) -> None:
    """Add what the results of one region state."""
    drawn = next((region for region in group if _kind(region) in (*_DRAWN, *_OTHER_SHAPES)), None)
    for region in group:
        value, kind = region.value, _kind(region)
        if region is drawn or kind == _LABELS:
            continue
        if value is not None and kind in ("choices", "taxonomy") and drawn is None:
            results.fields[region.from_name or kind] = (
                *results.fields.get(region.from_name or kind, ()),
                *_choices(value),
            )
        else:
            notes.add("result that is neither shape nor choice of an image left out", f"{where}: {kind or 'no type'}")
    if drawn is None or drawn.value is None:
        return
    size_hw = _size_hw(drawn, where)
    if size_hw is not None and results.size_hw not in (None, size_hw):
        raise DataError(
            f"{where}: original_width and original_height {size_hw[1]} x {size_hw[0]}, but {results.size_hw} (height, "
            "width) in other regions of the image; draw it again"
        )
    results.size_hw = size_hw or results.size_hw
    label = _label(group, f"{where}", notes)
    where = f"{where} ({label or 'no label'})"
    if drawn.image_rotation:
        raise DataError(
            f"{where}: drawn on an image that was rotated in Label Studio by {drawn.image_rotation:g} degrees, "
            "which is not read; rotate the image back and save, or rotate the file"
        )
    kind = _kind(drawn)
    if kind in _OTHER_SHAPES:
        notes.add(UNSUPPORTED_SHAPE, f"{where}: {kind}")
        results.lost.append(label)
    elif kind == "keypoint" and not label:
        notes.add("keypoint without a label left out", where)
        results.lost.append("")
    elif kind == "keypoint":
        x, y = _numbers(drawn.value, ("x", "y"), where)
        sx, sy = _scale(size_hw)
        results.points.append(Point(label, drawn.parentID, x * sx, y * sy, _unit(size_hw), where))
    else:
        instance = ShapeInstance(label, where)
        _draw(instance, drawn.value, kind, size_hw, notes)
        results.instances.append(instance)
        results.ids.append(drawn.id)


def _draw(instance: ShapeInstance, value: Value, kind: str, size_hw: tuple[int, int] | None, notes: RepairLog) -> None:
    """Set box, outline or mask. Percent become pixels where the size is stated; else when the file is read."""
    where = instance.where
    if kind == "brush":
        if size_hw is None:
            raise DataError(f"{where}: a mask without original_width and original_height; export the project again")
        instance.mask = brush_rle(value.rle, size_hw, where)
        return
    instance.unit = _unit(size_hw)
    sx, sy = _scale(size_hw)
    rotation = value.rotation or 0.0
    if rotation and size_hw is None:
        raise DataError(
            f"{where}: rotated by {rotation:g} degrees, but without original_width and original_height, which this "
            "needs; export the project again"
        )
    if kind == "polygon":
        instance.rings = [[(x * sx, y * sy) for x, y in value.points]]
    elif kind == "ellipse":
        x, y, rx, ry = _numbers(value, ("x", "y", "radiusX", "radiusY"), where)
        instance.rings = [*ellipse_rings(x * sx, y * sy, rx * sx, ry * sy, rotation, where, notes)]
    else:
        x, y, width, height = _numbers(value, ("x", "y", "width", "height"), where)
        box = [x * sx, y * sy, width * sx, height * sy]
        if rotation % 360:
            notes.add(ROTATED_BOX, where)
            box = extent_xywh(_rotated_corners(box, rotation))
        instance.box_xywh = box


def _unit(size_hw: tuple[int, int] | None) -> float:
    """``ShapeInstance.unit`` of numbers that are multiplied by ``_scale``."""
    return PERCENT if size_hw is None else 0.0


def _scale(size_hw: tuple[int, int] | None) -> tuple[float, float]:
    """Pixels of a percent, in x and y; 1 if the size is not known."""
    return (1.0, 1.0) if size_hw is None else (size_hw[1] / PERCENT, size_hw[0] / PERCENT)


def _rotated_corners(box: Sequence[float], degrees: float) -> npt.NDArray[np.float64]:
    """[4, 2]: the corners of a rectangle that is rotated clockwise about its top-left corner."""
    x, y, width, height = box
    offsets = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([x, y]) + offsets @ np.array([[cos, sin], [-sin, cos]])


def _kind(region: Region) -> str:
    """The kind of a result without the suffix "labels": "rectangle", "choices", ...; "labels" for a label alone."""
    kind = region.type.lower()
    if not kind and region.value is not None:  # JSON-MIN
        kind = next((f"{name}{_LABELS}" for name in _DRAWN if getattr(region.value, f"{name}{_LABELS}")), "")
        if not kind:
            kind = _kind_of_content(region.value)
    return kind if kind == _LABELS else kind.removesuffix(_LABELS)


def _kind_of_content(value: Value) -> str:
    if value.rle:
        return "brush"
    if value.points:
        return "polygon"
    if value.radiusX is not None:
        return "ellipse"
    return "rectangle" if value.width is not None and value.x is not None else ""


def _label(group: Sequence[Region], where: str, notes: RepairLog) -> str:
    """The label of a region: of the shape itself, or of a separate result; "" for none."""
    names = [f"{name}{_LABELS}" for name in _DRAWN] + [_LABELS]
    values = [region.value for region in group if region.value is not None]
    labels: list[str] = next((listed for value in values for name in names if (listed := getattr(value, name))), [])
    if len(set(labels)) > 1:
        notes.add("region with several labels read with the first", f"{where} ({', '.join(labels)})")
    return labels[0].strip() if labels else ""


def _choices(value: Value) -> tuple[str, ...]:
    """The choices of a control; of a taxonomy the path of each, such as "animal / cat"."""
    if value.taxonomy is not None:
        paths = (path if isinstance(path, list) else [path] for path in value.taxonomy)
        return tuple(" / ".join(map(str, path)) for path in paths)
    chosen = [value.choices] if isinstance(value.choices, str) else value.choices or []
    return tuple(text for choice in chosen if (text := choice.strip()))


def _size_hw(region: Region, where: str) -> tuple[int, int] | None:
    height, width = region.original_height, region.original_width
    if not height or not width:
        return None
    if not all(0 < side <= MAX_SIDE and side == int(side) for side in (height, width)):
        raise DataError(f"{where}: original_width {width:g} and original_height {height:g} are no size; correct them")
    return int(height), int(width)


def _numbers(value: Value, names: Sequence[str], where: str) -> list[float]:
    numbers = [getattr(value, name) for name in names]
    if None in numbers:
        raise DataError(f"{where}: no {names[numbers.index(None)]}; draw the region again or remove it")
    return numbers
