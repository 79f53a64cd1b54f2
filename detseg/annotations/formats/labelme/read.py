"""Read LabelMe annotations into a table: one JSON file per image, or the XML of the old web tool."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as coco_mask

from detseg.annotations.builder import MAX_SIDE
from detseg.annotations.formats.format import Detected
from detseg.annotations.formats.labelme.xml import is_labelme_xml, read_labelme_xml
from detseg.annotations.formats.shared.foreground import foreground
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.problems import Problems
from detseg.annotations.formats.shared.shapes import (
    UNSUPPORTED_SHAPE,
    ShapeAnnotation,
    ShapeInstance,
    ellipse_ring,
    shapes_table,
)
from detseg.annotations.image_lookup import ImageLookup, ImageReference
from detseg.annotations.instance_box import ROTATED_BOX, extent_xywh
from detseg.annotations.listing import is_image, list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.label_images import decode_label_png
from detseg.masks import check_polygons, segmentation_box, segmentation_to_rle
from detseg.media.files import exists, is_dir, is_file, read_bytes
from detseg.postprocess import crop_rle
from detseg.structures import RLE

_ROTATED = ("rotation", "oriented_rectangle")
"""Rotated boxes of four corners: of X-AnyLabeling, and of LabelMe."""

_FILES_CHECKED = 3  # files that are opened to detect the format


class _Shape(msgspec.Struct):
    """One shape. ``mask`` is a base64 PNG whose corners are the two points (LabelMe 5.3 and later); ``difficult`` is
    written by X-AnyLabeling."""

    points: list[tuple[float, float]] = []
    label: str | None = None
    shape_type: str | None = "polygon"
    group_id: int | float | str | None = None
    mask: str | None = None
    difficult: bool | None = None


class _File(msgspec.Struct):
    """One file. ``imageData`` (the embedded image) is ignored; the image file is read instead."""

    shapes: list[_Shape]
    imagePath: str | None = None
    imageHeight: int | float | None = None
    imageWidth: int | float | None = None
    flags: dict[str, Any] | None = None


class _Head(msgspec.Struct):
    shapes: list[msgspec.Raw]


def find_labelme(root: Path, files: list[str]) -> Detected | None:
    """One line to print, if the folder contains LabelMe files, at any depth.

    The first three JSON files decide: LabelMe files are objects with a list ``shapes`` (COCO has ``images``, VIA
    ``regions``). Without such files the first XML files decide: Pascal VOC has the same root ``annotation``, so files
    with a ``bndbox`` or a ``size`` are VOC regardless of other content; LabelMe files have ``polygon``, ``segm`` or
    ``imagesize`` instead. Check for COCO, VOC and CVAT before this format.
    """
    names = [file for file in files if file.lower().endswith(".json")]
    if names and all(_is_labelme_json(root / file) for file in names[:_FILES_CHECKED]):
        return Detected(f"LabelMe: {len(names)} JSON files")
    names = [file for file in files if file.lower().endswith(".xml")]
    if names and all(is_labelme_xml(root / file) for file in names[:_FILES_CHECKED]):
        return Detected(f"LabelMe (web tool): {len(names)} XML files")
    return None


def read_labelme(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
    follow_links: bool = False,
    missing_images: str = "error",
) -> AnnotationTable:
    """Read LabelMe files: polygons, rectangles (two opposite corners, or four), circles (as polygons) and masks.

    A rotated box becomes its axis-aligned bounding box, with a note. If no file has shapes, the flags of the images are
    their class labels. Shapes with the same label and ``group_id`` are one instance: the union of its masks and
    polygons. Points and lines are left out with a note. The image is found by ``imagePath``, by its file name if the
    path is from another machine, else by the name of the JSON file; an image that is only embedded is not extracted. A
    file without shapes is a negative image; an image without a file is left out with a note.

    Arguments and errors are those of :class:`detseg.annotations.formats.format.Reader`; ``data`` is the
    folder or one file. Splits are the folders, if all files are in folders such as train/ and val/.
    """
    data = Path(data)
    if not exists(data):
        raise FileNotFoundError(f"{data}: no such file or folder")
    base = data.parent if is_file(data) else data
    is_read = None if is_file(data) else lambda file: file.lower().endswith((".json", ".xml"))
    files = list_files(base, follow_links, is_read)
    names = [data.name] if is_file(data) else [file for file in files if file.lower().endswith(".json")]
    notes = RepairLog()
    xml_files = [file for file in (names if is_file(data) else files) if file.lower().endswith(".xml")]
    if xml_files and not any(name.lower().endswith(".json") for name in names):
        annotations = [read_labelme_xml(base, file, files, notes) for file in xml_files]
    else:
        if images is not None and not is_dir(images):
            raise FileNotFoundError(f"{images}: no such image folder")
        lookup = ImageLookup(base if images is None else Path(images), follow_links)
        annotations, problems = [], Problems()
        for name in names:
            with problems.collect():
                annotation = _read_file(base / name, name, is_file(data), lookup, notes)
                annotations += [] if annotation is None else [annotation]
        problems.raise_all(base.name)
    if not annotations:
        raise DataError(f"{data}: no LabelMe file in it; save annotations next to the images, or pass their folder")
    folders = [annotation.image.folder.partition("/")[0] for annotation in annotations]
    by_folder = not split and all(split_of(folder) for folder in folders)
    for annotation, folder in zip(annotations, folders, strict=True):
        annotation.split = split_of(folder) if by_folder else split
    source = data.name if is_file(data) else base.name
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


def _is_labelme_json(path: Path) -> bool:
    try:
        msgspec.json.decode(read_bytes(path).removeprefix(b"\xef\xbb\xbf"), type=_Head)
    except (msgspec.MsgspecError, ValueError, RecursionError, OSError):
        return False
    return True


def _read_file(path: Path, name: str, only_file: bool, lookup: ImageLookup, notes: RepairLog) -> ShapeAnnotation | None:
    """The annotation of one file; None for JSON of another kind (an error if it is the only file)."""
    try:
        file = load_tool_json(path, name, _File, "LabelMe", notes)
    except DataError:
        if only_file or not _is_other_object(path):
            raise
        notes.add("JSON file without shapes left out", name)
        return None
    annotation = ShapeAnnotation(_image_reference(file, name, lookup, notes), name, _size_hw(file, name))
    annotation.tags = {flag.strip(): _is_set(value) for flag, value in (file.flags or {}).items() if flag.strip()}
    groups: dict[Any, list[tuple[_Shape, str]]] = {}
    left_out: dict[Any, str] = {}
    for number, shape in enumerate(file.shapes, 1):
        where = f"{name}, shape {number} ({shape.label})"
        kind = shape.shape_type or "polygon"
        key = number if shape.group_id is None else (shape.label, shape.group_id)
        if kind not in ("polygon", "rectangle", "circle", "mask", *_ROTATED):
            notes.add(UNSUPPORTED_SHAPE, f"{where}: {kind}")
            left_out[key] = (shape.label or "").strip()
            continue
        groups.setdefault(key, []).append((shape, where))
    annotation.lost = [label for key, label in left_out.items() if key not in groups]
    for shapes in groups.values():
        annotation.instances.append(_instance(shapes, annotation.size_hw, notes))
    return annotation


def _is_set(value: Any) -> bool:
    """Whether a flag is set; tools other than LabelMe also write numbers and texts."""
    return value.strip().lower() in ("true", "yes", "1") if isinstance(value, str) else bool(value)


def _is_other_object(path: Path) -> bool:
    """Whether a file is valid JSON without the key ``shapes``, such as settings next to the annotations."""
    try:
        value = msgspec.json.decode(read_bytes(path).removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return True
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return "shapes" not in value


def _image_reference(file: _File, name: str, lookup: ImageLookup, notes: RepairLog) -> ImageReference:
    """The image of a file: by ``imagePath``, else by the name of the JSON file."""
    parent, _, file_name = name.rpartition("/")
    same_stem = ImageReference(PurePosixPath(file_name).stem, parent)
    if not file.imagePath:
        return same_stem
    by_path = ImageReference(file.imagePath, parent)
    if not lookup.find(by_path)[0]:
        if not is_image(file.imagePath):
            return same_stem
        if lookup.find(same_stem)[0]:
            notes.add("imagePath not found, image with the name of the JSON file used", f"{name}: {file.imagePath}")
            return same_stem
        return ImageReference(PurePosixPath(file.imagePath.replace("\\", "/")).name, parent)
    return by_path


def _size_hw(file: _File, name: str) -> tuple[int, int] | None:
    height, width = file.imageHeight, file.imageWidth
    if height is None or width is None:
        return None
    if not all(0 < side <= MAX_SIDE and side == int(side) for side in (height, width)):
        raise DataError(f"{name}: imageHeight {height} and imageWidth {width} are not a valid size; correct them")
    return int(height), int(width)


def _instance(shapes: list[tuple[_Shape, str]], size_hw: tuple[int, int] | None, notes: RepairLog) -> ShapeInstance:
    """Merge the shapes of one group into one instance: the union of outlines; with a rectangle, the box around all."""
    first, where = shapes[0]
    instance = ShapeInstance((first.label or "").strip(), where, difficult=bool(first.difficult))
    if len(shapes) > 1:
        where = instance.where = f"{where} and {len(shapes) - 1} more of group {first.group_id}"
    corners: list[tuple[float, float]] = []
    masks: list[RLE] = []
    for shape, shape_where in shapes:
        kind = shape.shape_type or "polygon"
        expected = {"polygon": (), "rectangle": (2, 4), **dict.fromkeys(_ROTATED, (4,))}.get(kind, (2,))
        if expected and len(shape.points) not in expected:
            raise DataError(
                f"{shape_where}: a {kind} of {len(shape.points)} points, expected {expected[0]}; draw it again or "
                "remove it"
            )
        if kind == "rectangle" or kind in _ROTATED:
            corners.extend(shape.points)
            if kind in _ROTATED and not _is_upright(shape.points):
                notes.add(ROTATED_BOX, shape_where)
        elif kind == "circle":
            (cx, cy), (x, y) = shape.points
            radius = float(np.hypot(x - cx, y - cy))
            instance.rings.append(ellipse_ring(cx, cy, radius, radius))
        elif kind == "mask":
            masks.append(_mask(shape, size_hw, shape_where, notes))
        else:
            instance.rings.append(shape.points)
    if corners:
        outlines = [
            np.asarray(corners, np.float64),
            *(np.asarray(r, np.float64).reshape(-1, 2) for r in instance.rings),
        ]
        instance.box_xywh = extent_xywh(np.concatenate(outlines))
        if instance.rings:
            notes.add("rectangle and polygon in one group: box around both, mask from the polygon", where)
    if masks:
        instance.mask = masks[0] if len(shapes) == 1 else _united(masks, instance, where, notes)
    return instance


def _is_upright(corners: list[tuple[float, float]]) -> bool:
    """Whether all corners are those of the box around them."""
    x, y, width, height = extent_xywh(corners)
    return all(px in (x, x + width) and py in (y, y + height) for px, py in corners)


def _united(masks: list[RLE], instance: ShapeInstance, where: str, notes: RepairLog) -> RLE:
    """The union of the masks and the outlines of a group; the box of its rectangles then contains them all."""
    size_hw = (masks[0]["size"][0], masks[0]["size"][1])
    rings = [ring for ring in (np.asarray(ring, np.float64).ravel() for ring in instance.rings) if ring.size >= 6]
    outlines = [segmentation_to_rle(check_polygons([ring], size_hw, where), size_hw) for ring in rings]
    notes.add("masks and outlines of one group united", where)
    united: RLE = coco_mask.merge([*masks, *outlines])
    if instance.box_xywh is not None:
        x, y, width, height = segmentation_box(united)
        x1, y1, w, h = instance.box_xywh
        instance.box_xywh = extent_xywh([[x, y], [x + width, y + height], [x1, y1], [x1 + w, y1 + h]])
    instance.rings = []
    return united


def _mask(shape: _Shape, size_hw: tuple[int, int] | None, where: str, notes: RepairLog) -> Any:
    """The RLE of a mask shape, whose pixels extend from the first point to the second, inclusive."""
    if shape.mask is None or size_hw is None:
        missing = "imageHeight and imageWidth" if shape.mask is not None else "pixels"
        raise DataError(f"{where}: a mask without {missing}; save the file again with LabelMe")
    try:
        content = base64.b64decode(shape.mask, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: the mask is not base64; save the file again with LabelMe") from None
    crop = foreground(decode_label_png(content, name=f"{where}, mask"), where, notes)
    left, top = (round(value) for value in shape.points[0])
    if left < 0 or top < 0 or top + crop.shape[0] > size_hw[0] or left + crop.shape[1] > size_hw[1]:
        raise DataError(
            f"{where}: a mask of {crop.shape[1]} x {crop.shape[0]} pixels at {left}, {top} extends beyond the image "
            f"of {size_hw[1]} x {size_hw[0]} (width x height); draw it again"
        )
    return crop_rle(crop, top, left, size_hw)
