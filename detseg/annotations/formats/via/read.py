"""VIA's JSON (VGG Image Annotator 1 and 2) to a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from math import degrees
from pathlib import Path
from typing import Any

import msgspec

from detseg.annotations.formats.shared.annotation_files import annotation_files, files_of, summary
from detseg.annotations.formats.shared.image_lookup import Wanted
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.shapes import (
    LEFT_OUT,
    ONLY_CLASS,
    ShapeAnnotation,
    ShapeInstance,
    ellipse_ring,
    shapes_table,
)
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "class_name", "object", "object_name")
"""Region attributes that are taken for the class, the first of these before any other."""

_HEAD = 2**16
_NOT_SAID = ("", "undefined", "not_defined", "none", "null")


class _Shape(msgspec.Struct):
    name: str
    x: float | None = None
    y: float | None = None
    width: float | None = None
    height: float | None = None
    cx: float | None = None
    cy: float | None = None
    r: float | None = None
    rx: float | None = None
    ry: float | None = None
    theta: float | None = None
    all_points_x: list[float] = []
    all_points_y: list[float] = []


class _Region(msgspec.Struct):
    shape_attributes: _Shape
    region_attributes: dict[str, Any] | None = None


class _Entry(msgspec.Struct):
    """One image. Regions are a list (VIA 2), or a dict by number (VIA 1)."""

    filename: str
    regions: list[_Region] | dict[str, _Region] = []


class _Project(msgspec.Struct):
    via_img_metadata: dict[str, _Entry] | None = msgspec.field(name="_via_img_metadata", default=None)


def find_via(root: Path, files: list[str]) -> str | None:
    """What is found, if the folder holds VIA's JSON at the top, in annotations/, or in train/, val/, test/: a project
    (its keys begin with ``_via_``), or images with ``filename``, ``regions`` and ``file_attributes``."""
    return summary("VIA", annotation_files(root, files, ".json", _is_via))


def read_via(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read VIA's JSON: a project, or exported annotations; rectangles, polygons, circles and ellipses (as polygons).

    The class is the region attribute called as in ``CLASS_ATTRIBUTES``, else the one that most regions have; of a
    checkbox the one word that is ticked. Regions without it are dropped with a note; if no region has attributes, all
    are of the class "object". Points and lines are left out with a note. An image without regions is a negative
    image.

    Args:
        data: the folder, or the JSON file.
        images: folder of the images if they are not beside or below the file.
        classes: names that become labels 1, 2, ... in this order; instances of others are left out with a note.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says; "" lets the names of files and folders say it.

    Raises:
        DataError: what cannot be used, with file, image, region and remedy.
        OSError: a file or folder is missing.
    """
    base, found = files_of(Path(data), split, ".json", _is_via)
    notes = RepairLog()
    entries = [(file, part, entry) for file, part in found for entry in _entries(base / file, file)]
    chosen = _class_attribute([region for _, _, entry in entries for _, region in _regions(entry)])
    if chosen is None and any(entry.regions for _, _, entry in entries):
        notes.add(f"regions without attributes: every instance is of the class {ONLY_CLASS!r}", found[0][0])
    elif chosen is not None and chosen.lower() not in CLASS_ATTRIBUTES:
        notes.add("region attribute taken as the class", f"{chosen} ({found[0][0]})")
    drawn = []
    for file, part, entry in entries:
        image = ShapeAnnotation(
            Wanted(entry.filename, file.rpartition("/")[0]), f"{file}, entry {entry.filename!r}", split=part
        )
        for number, region in _regions(entry):
            where = f"{file}, {entry.filename}, region {number}"
            label = ONLY_CLASS if chosen is None else _label(region, chosen, where, notes)
            instance = _instance(region.shape_attributes, ShapeInstance(label, where), notes)
            if instance is not None:
                image.instances.append(instance)
        drawn.append(image)
    source = found[0][0] if len(found) == 1 else base.name
    return shapes_table(drawn, base, images, source=source, notes=notes, classes=classes, bad_instances=bad_instances)


def _is_via(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    attributes = b'"file_attributes"' in head or b'"shape_attributes"' in head
    return b'"_via_' in head or (attributes and b'"filename"' in head and b'"regions"' in head)


def _entries(path: Path, name: str) -> list[_Entry]:
    project = load_tool_json(path, name, dict[str, msgspec.Raw], "VIA")
    if any(key.startswith("_via_") for key in project):
        images = load_tool_json(path, name, _Project, "VIA").via_img_metadata
        if images is None:
            raise DataError(f"{name}: a VIA project without _via_img_metadata; save the project again, or export JSON")
        return list(images.values())
    return list(load_tool_json(path, name, dict[str, _Entry], "VIA").values())


def _regions(entry: _Entry) -> list[tuple[str, _Region]]:
    if isinstance(entry.regions, dict):
        return list(entry.regions.items())
    return [(str(number), region) for number, region in enumerate(entry.regions)]


def _class_attribute(regions: Sequence[_Region]) -> str | None:
    """The attribute that holds the class; None if no region has any."""
    counts: Counter[str] = Counter()
    for region in regions:
        counts.update((region.region_attributes or {}).keys())
    usual = {name.lower(): name for name in reversed(list(counts))}
    for name in CLASS_ATTRIBUTES:
        if name in usual:
            return usual[name]
    return max(counts, key=lambda name: counts[name]) if counts else None  # the first of equals


def _label(region: _Region, chosen: str, where: str, notes: RepairLog) -> str:
    """The value of the attribute as a word; a checkbox gives the ticked ones as a dict of true."""
    value = (region.region_attributes or {}).get(chosen)
    if isinstance(value, dict):
        ticked = [key for key, on in value.items() if on in (True, "true", 1)]
        if len(ticked) > 1:
            raise DataError(f"{where}: {chosen} has several values ({', '.join(ticked)}); tick one")
        value = ticked[0] if ticked else ""
    word = "" if value is None else str(value).strip()
    if word.lower() in _NOT_SAID and word:
        notes.add(f"value {word!r} of {chosen} taken as no class", where)
        return ""
    return word


def _instance(shape: _Shape, made: ShapeInstance, notes: RepairLog) -> ShapeInstance | None:
    where = f"{made.where} ({shape.name})"
    if shape.name == "rect":
        made.box_xywh = _numbers(shape, ("x", "y", "width", "height"), where)
    elif shape.name == "polygon":
        if len(shape.all_points_x) != len(shape.all_points_y):
            raise DataError(
                f"{where}: {len(shape.all_points_x)} x and {len(shape.all_points_y)} y; draw the polygon again"
            )
        made.rings = [list(zip(shape.all_points_x, shape.all_points_y, strict=True))]
    elif shape.name == "circle":
        cx, cy, r = _numbers(shape, ("cx", "cy", "r"), where)
        made.rings = [ellipse_ring(cx, cy, r, r)]
    elif shape.name == "ellipse":
        cx, cy, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), where)
        made.rings = [ellipse_ring(cx, cy, rx, ry, degrees(shape.theta or 0.0))]  # VIA 2 writes radians
    else:
        notes.add(LEFT_OUT, where)
        return None
    return made


def _numbers(shape: _Shape, names: Sequence[str], where: str) -> list[float]:
    values = [getattr(shape, name) for name in names]
    if None in values:
        raise DataError(f"{where}: no {names[values.index(None)]}; draw the region again or remove it")
    return values
