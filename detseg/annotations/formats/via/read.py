"""Read VIA JSON (VGG Image Annotator 1 and 2) into a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from math import degrees
from pathlib import Path
from typing import Any

import msgspec

from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.shared.annotation_files import annotation_files, locate_annotation_files, summary_line
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import (
    ONLY_CLASS,
    UNSUPPORTED_SHAPE,
    ShapeAnnotation,
    ShapeInstance,
    ellipse_ring,
    shapes_table,
)
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

CLASS_ATTRIBUTES = ("class", "label", "name", "type", "category", "class_name", "object", "object_name")
"""Region attributes that are used as the class, in order of preference."""

_HEAD = 2**16
_NO_CLASS = ("", "undefined", "not_defined", "none", "null")


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
    """One image. Regions are a list (VIA 2), or a dict from number to region (VIA 1)."""

    filename: str
    regions: list[_Region] | dict[str, _Region] = []


class _Project(msgspec.Struct):
    via_img_metadata: dict[str, _Entry] | None = msgspec.field(name="_via_img_metadata", default=None)


def find_via(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains VIA JSON at the top level, in annotations/, or in train/, val/, test/:
    a project (keys start with ``_via_``), or images with ``filename``, ``regions`` and ``file_attributes``."""
    return summary_line("VIA", annotation_files(root, files, ".json", _is_via))


def read_via(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read VIA JSON: a project, or exported annotations; rectangles, polygons, circles and ellipses (as polygons).

    The class is the region attribute with a name in ``CLASS_ATTRIBUTES``, else the attribute that most regions have;
    for a checkbox, its checked option. Regions without it are dropped with a note; if no region has attributes, all
    have the class "object". Points and lines are left out with a note. An image without regions is negative.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the JSON file. Splits are those in the names of files and folders.
    """
    base, annotation_paths = locate_annotation_files(Path(data), split, ".json", _is_via, follow_links)
    notes = RepairLog()
    entries = [
        (file, file_split, entry)
        for file, file_split in annotation_paths
        for entry in _entries(base / file, file, notes)
    ]
    attribute = _class_attribute([region for _, _, entry in entries for _, region in _regions(entry)])
    if attribute is None and any(entry.regions for _, _, entry in entries):
        notes.add(f"regions without attributes: all instances have the class {ONLY_CLASS!r}", annotation_paths[0][0])
    elif attribute is not None and attribute.lower() not in CLASS_ATTRIBUTES:
        notes.add("region attribute used as the class", f"{attribute} ({annotation_paths[0][0]})")
    annotations, problems = [], Problems()
    for file, file_split, entry in entries:
        annotation = ShapeAnnotation(
            ImageReference(entry.filename, file.rpartition("/")[0]),
            f"{file}, entry {entry.filename!r}",
            split=file_split,
        )
        for number, region in _regions(entry):
            where = f"{file}, {entry.filename}, region {number}"
            class_name = ONLY_CLASS if attribute is None else _class_name(region, attribute, where, notes)
            with problems.collect():
                instance = _instance(region.shape_attributes, ShapeInstance(class_name, where), notes)
                annotation.instances += [] if instance is None else [instance]
        annotations.append(annotation)
    source = annotation_paths[0][0] if len(annotation_paths) == 1 else base.name
    problems.raise_all(source)
    return shapes_table(
        annotations,
        base,
        images,
        source=source,
        notes=notes,
        classes=classes,
        bad_instances=bad_instances,
        follow_links=follow_links,
        missing_images=missing_images,
    )


def _is_via(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    has_attributes = b'"file_attributes"' in head or b'"shape_attributes"' in head
    return b'"_via_' in head or (has_attributes and b'"filename"' in head and b'"regions"' in head)


def _entries(path: Path, name: str, notes: RepairLog) -> list[_Entry]:
    project = load_tool_json(path, name, dict[str, msgspec.Raw], "VIA", notes)
    if any(key.startswith("_via_") for key in project):
        images = load_tool_json(path, name, _Project, "VIA", notes).via_img_metadata
        if images is None:
            raise DataError(f"{name}: a VIA project without _via_img_metadata; save the project again, or export JSON")
        return list(images.values())
    return list(load_tool_json(path, name, dict[str, _Entry], "VIA", notes).values())


def _regions(entry: _Entry) -> list[tuple[str, _Region]]:
    if isinstance(entry.regions, dict):
        return list(entry.regions.items())
    return [(str(number), region) for number, region in enumerate(entry.regions)]


def _class_attribute(regions: Sequence[_Region]) -> str | None:
    """The name of the attribute with the class; None if no region has attributes."""
    counts: Counter[str] = Counter()
    for region in regions:
        counts.update((region.region_attributes or {}).keys())
    attribute_of = {name.lower(): name for name in reversed(list(counts))}
    for name in CLASS_ATTRIBUTES:
        if name in attribute_of:
            return attribute_of[name]
    return max(counts, key=lambda name: counts[name]) if counts else None  # the first if several are equal


def _class_name(region: _Region, attribute: str, where: str, notes: RepairLog) -> str:
    """The value of the attribute as text, "" for none; a checkbox stores its checked options as a dict of true."""
    value = (region.region_attributes or {}).get(attribute)
    if isinstance(value, dict):
        checked = [key for key, on in value.items() if on in (True, "true", 1)]
        if len(checked) > 1:
            raise DataError(f"{where}: {attribute} has several values ({', '.join(checked)}); select only one")
        value = checked[0] if checked else ""
    text = "" if value is None else str(value).strip()
    if text.lower() in _NO_CLASS and text:
        notes.add(f"value {text!r} of {attribute} read as no class", where)
        return ""
    return text


def _instance(shape: _Shape, instance: ShapeInstance, notes: RepairLog) -> ShapeInstance | None:
    where = f"{instance.where} ({shape.name})"
    if shape.name == "rect":
        instance.box_xywh = _numbers(shape, ("x", "y", "width", "height"), where)
    elif shape.name == "polygon":
        if len(shape.all_points_x) != len(shape.all_points_y):
            raise DataError(
                f"{where}: {len(shape.all_points_x)} x and {len(shape.all_points_y)} y values; draw the polygon again"
            )
        instance.rings = [list(zip(shape.all_points_x, shape.all_points_y, strict=True))]
    elif shape.name == "circle":
        cx, cy, r = _numbers(shape, ("cx", "cy", "r"), where)
        instance.rings = [ellipse_ring(cx, cy, r, r)]
    elif shape.name == "ellipse":
        cx, cy, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), where)
        instance.rings = [ellipse_ring(cx, cy, rx, ry, degrees(shape.theta or 0.0))]  # VIA 2 writes radians
    else:
        notes.add(UNSUPPORTED_SHAPE, where)
        return None
    return instance


def _numbers(shape: _Shape, names: Sequence[str], where: str) -> list[float]:
    values = [getattr(shape, name) for name in names]
    if None in values:
        raise DataError(f"{where}: no {names[values.index(None)]}; draw the region again or remove it")
    return values
