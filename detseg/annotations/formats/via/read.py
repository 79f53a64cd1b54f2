"""Read VIA JSON (VGG Image Annotator 1, 2 and 3) into a table."""

from __future__ import annotations

import os
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
    ellipse_rings,
    shapes_table,
)
from detseg.annotations.formats.via.class_attribute import choose_attribute, class_of, note_only_class
from detseg.annotations.formats.via.entries import Entry, Shape, ViaFile
from detseg.annotations.formats.via.image_classes import LabelledImage, image_attribute, image_classes_table
from detseg.annotations.formats.via.version_3 import KEYS, Project, converted
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import open_file

_HEAD = 2**16


class _Project(msgspec.Struct):
    via_img_metadata: dict[str, Entry] | None = msgspec.field(name="_via_img_metadata", default=None)
    via_attributes: Any = msgspec.field(name="_via_attributes", default=None)


def find_via(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains VIA JSON at the top level, in annotations/, or in train/, val/, test/:
    a project (keys start with ``_via_``), images with ``filename``, ``regions`` and ``file_attributes``, or a project
    of VIA 3 (``project``, ``config``, ``attribute``, ``file``)."""
    return summary_line("VIA", annotation_files(root, files, ".json", _is_via))


def read_via(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    class_attribute: str | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read VIA JSON: a project, or exported annotations; rectangles, polygons, circles and ellipses (as polygons).

    Of a project of VIA 3 the images are read; videos and segments of time are left out with a note.

    The class is the value of the region attribute ``class_attribute``, else of the one whose values are classes
    (:func:`choose_attribute`); for a checkbox, its checked option. Regions without it are dropped with a note; if no
    region has a value, all have the class "object". Points and lines are left out with a note. An image without regions
    is negative; if no image has regions, a file attribute may hold the class of images (:func:`image_attribute`).

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or the JSON file. Splits are those in the names of files and folders.
    """
    base, annotation_paths = locate_annotation_files(Path(data), split, ".json", _is_via, follow_links)
    notes = RepairLog()
    entries: list[tuple[str, str, Entry]] = []
    definitions: dict[str, Any] = {}
    for file, file_split in annotation_paths:
        content = _read_file(base / file, file, notes)
        entries.extend((file, file_split, entry) for entry in content.entries)
        definitions |= content.definitions
    source = annotation_paths[0][0] if len(annotation_paths) == 1 else base.name
    attributes = [region.region_attributes or {} for _, _, entry in entries for _, region in entry.numbered()]
    if not attributes:
        labelled = [_labelled(entry, file, file_split) for file, file_split, entry in entries]
        name = image_attribute(labelled, class_attribute, source, notes)
        if name is not None:
            return image_classes_table(
                labelled,
                name,
                base,
                images,
                source=source,
                notes=notes,
                classes=classes,
                follow_links=follow_links,
                missing_images=missing_images,
            )
    attribute = choose_attribute(attributes, definitions, class_attribute, source, notes) if attributes else None
    if attribute is None and attributes:
        note_only_class(attributes, source, notes)
    annotations = _annotations(entries, attribute, source, notes)
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


def _annotations(
    entries: Sequence[tuple[str, str, Entry]], attribute: str | None, source: str, notes: RepairLog
) -> list[ShapeAnnotation]:
    """The shapes of all images; ``entries`` are file, split and image, ``attribute`` holds the class."""
    annotations: list[ShapeAnnotation] = []
    problems = Problems()
    for file, file_split, entry in entries:
        annotation = ShapeAnnotation(
            ImageReference(entry.filename, file.rpartition("/")[0]),
            f"{file}, entry {entry.filename!r}",
            split=file_split,
        )
        for number, region in entry.numbered():
            where = f"{file}, {entry.filename}, region {number}"
            class_name = ONLY_CLASS
            if attribute is not None:
                class_name = class_of(region.region_attributes or {}, attribute, where, notes)
            with problems.collect():
                instance = _instance(region.shape_attributes, ShapeInstance(class_name, where), notes)
                if instance is not None:
                    annotation.instances.append(instance)
                else:
                    annotation.lost.append(class_name)
        annotations.append(annotation)
    problems.raise_all(source)
    return annotations


def _is_via(path: Path) -> bool:
    with open_file(path) as file:
        head = file.read(_HEAD)
    has_attributes = b'"file_attributes"' in head or b'"shape_attributes"' in head
    is_version_3 = b'"project"' in head and b'"attribute"' in head and (b'"vid_list"' in head or b'"fid_list"' in head)
    return b'"_via_' in head or is_version_3 or (has_attributes and b'"filename"' in head and b'"regions"' in head)


def _read_file(path: Path, name: str, notes: RepairLog) -> ViaFile:
    """The images of a file, and the definitions of region attributes of a project."""
    project = load_tool_json(path, name, dict[str, msgspec.Raw], "VIA", notes)
    if any(key.startswith("_via_") for key in project):
        content = load_tool_json(path, name, _Project, "VIA", notes)
        images, defined = content.via_img_metadata, content.via_attributes
        if images is None:
            raise DataError(f"{name}: a VIA project without _via_img_metadata; save the project again, or export JSON")
        regions = defined.get("region") if isinstance(defined, dict) else None
        return ViaFile(list(images.values()), regions if isinstance(regions, dict) else {})
    if project.keys() >= {*KEYS}:
        return converted(load_tool_json(path, name, Project, "VIA", notes), name, notes)
    return ViaFile(list(load_tool_json(path, name, dict[str, Entry], "VIA", notes).values()))


def _labelled(entry: Entry, file: str, split: str) -> LabelledImage:
    attributes = entry.file_attributes if isinstance(entry.file_attributes, dict) else {}
    image = ImageReference(entry.filename, file.rpartition("/")[0])
    return LabelledImage(image, f"{file}, entry {entry.filename!r}", split, attributes)


def _instance(shape: Shape, instance: ShapeInstance, notes: RepairLog) -> ShapeInstance | None:
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
        instance.rings = [*ellipse_rings(cx, cy, r, r, 0.0, where, notes)]
    elif shape.name == "ellipse":
        cx, cy, rx, ry = _numbers(shape, ("cx", "cy", "rx", "ry"), where)
        angle = degrees(shape.theta or 0.0)  # VIA 2 writes radians
        instance.rings = [*ellipse_rings(cx, cy, rx, ry, angle, where, notes)]
    else:
        notes.add(UNSUPPORTED_SHAPE, where)
        return None
    return instance


def _numbers(shape: Shape, names: Sequence[str], where: str) -> list[float]:
    values = [getattr(shape, name) for name in names]
    if None in values:
        raise DataError(f"{where}: no {names[values.index(None)]}; draw the region again or remove it")
    return values
