"""LabelMe to a table: one JSON file an image, or the XML of the old web tool."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np

from detseg.annotations.builder import MAX_SIDE
from detseg.annotations.formats.labelme.xml import is_labelme_xml, read_labelme_xml
from detseg.annotations.formats.shared.image_lookup import ImageLookup, Wanted
from detseg.annotations.formats.shared.json_file import load_tool_json
from detseg.annotations.formats.shared.shapes import (
    LEFT_OUT,
    ShapeAnnotation,
    ShapeInstance,
    ellipse_ring,
    extent_xywh,
    shapes_table,
)
from detseg.annotations.listing import is_image, list_files, split_of
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.images import decode_label_png
from detseg.postprocess import crop_rle

_LOOKED_AT = 3  # files that are opened to find out what they are


class _Shape(msgspec.Struct):
    """One shape. ``mask`` is a PNG in base64 whose corners are the two points (LabelMe 5.3 and later); ``difficult`` is
    X-AnyLabeling's."""

    points: list[tuple[float, float]] = []
    label: str | None = None
    shape_type: str | None = "polygon"
    group_id: int | float | str | None = None
    mask: str | None = None
    difficult: bool | None = None


class _File(msgspec.Struct):
    """One file. ``imageData`` (the image, embedded) is not read: the image file is."""

    shapes: list[_Shape]
    imagePath: str | None = None
    imageHeight: int | float | None = None
    imageWidth: int | float | None = None
    flags: dict[str, Any] | None = None


class _Head(msgspec.Struct):
    shapes: list[msgspec.Raw]


def find_labelme(root: Path, files: list[str]) -> str | None:
    """What is found, if the folder holds LabelMe's files, at any depth.

    The first three JSON files decide: LabelMe's are objects with a list ``shapes`` (COCO has ``images``, VIA
    ``regions``). Without such files the first XML files decide: Pascal VOC has the same root ``annotation``, so files
    with a ``bndbox`` or a ``size`` are VOC's, whatever else they hold; LabelMe's have ``polygon``, ``segm`` or
    ``imagesize`` instead. Look for COCO, VOC and CVAT first.
    """
    names = [file for file in files if file.lower().endswith(".json")]
    if names and all(_is_labelme_json(root / file) for file in names[:_LOOKED_AT]):
        return f"LabelMe: {len(names)} JSON files"
    names = [file for file in files if file.lower().endswith(".xml")]
    if names and all(is_labelme_xml(root / file) for file in names[:_LOOKED_AT]):
        return f"LabelMe (web tool): {len(names)} XML files"
    return None


def read_labelme(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    bad_instances: str = "drop",
    split: str = "",
) -> AnnotationTable:
    """Read LabelMe's files: polygons, rectangles (two opposite corners, or four), circles (as polygons) and masks.

    Shapes of one label and one ``group_id`` are one instance. Points and lines are left out with a note. The image
    is the one that ``imagePath`` names, by its file name if the path is another machine's, else the one that is called
    like the JSON file; an image that is embedded only is not unpacked. A file without shapes is a negative image, a
    image without a file is left out with a note.

    Args:
        data: the folder, or one file.
        images: folder of the images if they are not beside the files.
        classes: names that become labels 1, 2, ... in this order; instances of others are left out with a note.
        bad_instances: "drop" or "error", see :class:`TableBuilder`.
        split: what the split column says; "" takes it from folders, if all files lie in such as train/ and val/.

    Raises:
        DataError: what cannot be used, with file, shape and remedy.
        OSError: a file or folder is missing.
    """
    data = Path(data)
    if not data.exists():
        raise FileNotFoundError(f"{data}: no such file or folder")
    base = data.parent if data.is_file() else data
    files = list_files(base)
    names = [data.name] if data.is_file() else [file for file in files if file.lower().endswith(".json")]
    notes = RepairLog()
    old = [file for file in (names if data.is_file() else files) if file.lower().endswith(".xml")]
    if old and not any(name.lower().endswith(".json") for name in names):
        drawn = [read_labelme_xml(base, file, files, notes) for file in old]
    else:
        if images is not None and not Path(images).is_dir():
            raise FileNotFoundError(f"{images}: no such image folder")
        search = ImageLookup(base if images is None else Path(images))
        drawn = [
            one for name in names if (one := _read_file(base / name, name, data.is_file(), search, notes)) is not None
        ]
    if not drawn:
        raise DataError(f"{data}: no LabelMe file in it; save annotations beside the images, or name their folder")
    folders = [one.image.near.partition("/")[0] for one in drawn]
    by_folder = not split and all(split_of(folder) for folder in folders)
    for one, folder in zip(drawn, folders, strict=True):
        one.split = split_of(folder) if by_folder else split
    source = data.name if data.is_file() else base.name
    return shapes_table(drawn, base, images, source=source, notes=notes, classes=classes, bad_instances=bad_instances)


def _is_labelme_json(path: Path) -> bool:
    try:
        msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError):
        return False
    return True


def _read_file(path: Path, name: str, only: bool, search: ImageLookup, notes: RepairLog) -> ShapeAnnotation | None:
    """The image of one file; None for JSON that is something else (unless it is the only one)."""
    try:
        file = load_tool_json(path, name, _File, "LabelMe")
    except DataError:
        if only or not _is_other_object(path):
            raise
        notes.add("JSON file without shapes left out", name)
        return None
    image = ShapeAnnotation(_image(file, name, search, notes), name, _size_hw(file, name))
    if any((file.flags or {}).values()):
        notes.add("flags of an image not read", name)
    groups: dict[Any, list[tuple[_Shape, str]]] = {}
    for number, shape in enumerate(file.shapes, 1):
        where = f"{name}, shape {number} ({shape.label})"
        kind = shape.shape_type or "polygon"
        if kind not in ("polygon", "rectangle", "circle", "mask"):
            notes.add(LEFT_OUT, f"{where}: {kind}")
            continue
        key = number if shape.group_id is None else (shape.label, shape.group_id)
        groups.setdefault(key, []).append((shape, where))
    for shapes in groups.values():
        image.instances.append(_instance(shapes, image.size_hw, notes))
    return image


def _is_other_object(path: Path) -> bool:
    """Whether a file is sound JSON without the key ``shapes``: settings that lie beside the annotations."""
    try:
        value = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return True
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return "shapes" not in value


def _image(file: _File, name: str, search: ImageLookup, notes: RepairLog) -> Wanted:
    near, _, last = name.rpartition("/")
    own = Wanted(PurePosixPath(last).stem, near)
    if not file.imagePath or not is_image(file.imagePath):
        return own
    named = Wanted(file.imagePath, near)
    if not search.find(named)[0]:
        if search.find(own)[0]:
            notes.add("image called like its JSON file taken in place of imagePath", f"{name}: {file.imagePath}")
            return own
        return Wanted(PurePosixPath(file.imagePath.replace("\\", "/")).name, near)
    return named


def _size_hw(file: _File, name: str) -> tuple[int, int] | None:
    height, width = file.imageHeight, file.imageWidth
    if height is None or width is None:
        return None
    if not all(0 < side <= MAX_SIDE and side == int(side) for side in (height, width)):
        raise DataError(f"{name}: imageHeight {height} and imageWidth {width} are not a size; correct them")
    return int(height), int(width)


def _instance(shapes: list[tuple[_Shape, str]], size_hw: tuple[int, int] | None, notes: RepairLog) -> ShapeInstance:
    """Shapes of one group as one instance: the union of outlines, or the box around all where one is a rectangle."""
    first, where = shapes[0]
    made = ShapeInstance((first.label or "").strip(), where, difficult=bool(first.difficult))
    if len(shapes) > 1:
        where = made.where = f"{where} and {len(shapes) - 1} more of group {first.group_id}"
    corners: list[tuple[float, float]] = []
    for shape, place in shapes:
        kind = shape.shape_type or "polygon"
        if kind != "polygon" and len(shape.points) != 2 and not (kind == "rectangle" and len(shape.points) == 4):
            raise DataError(f"{place}: a {kind} of {len(shape.points)} points, expected 2; draw it again or remove it")
        if kind == "rectangle":
            corners.extend(shape.points)
        elif kind == "circle":
            (cx, cy), (x, y) = shape.points
            radius = float(np.hypot(x - cx, y - cy))
            made.rings.append(ellipse_ring(cx, cy, radius, radius))
        elif kind == "mask":
            if len(shapes) > 1:
                raise DataError(f"{place}: a mask in a group of several shapes; remove its group_id")
            made.mask = _mask(shape, size_hw, place)
        else:
            made.rings.append(shape.points)
    if corners:
        every = [np.asarray(corners, np.float64), *(np.asarray(r, np.float64).reshape(-1, 2) for r in made.rings)]
        made.box_xywh = extent_xywh(np.concatenate(every))
        if made.rings:
            notes.add("rectangle and polygon of one group: box around both, mask of the polygon", where)
    return made


def _mask(shape: _Shape, size_hw: tuple[int, int] | None, where: str) -> Any:
    """The RLE of a mask shape: its pixels lie between the two points, both included."""
    if shape.mask is None or size_hw is None:
        what = "imageHeight and imageWidth" if shape.mask is not None else "its pixels"
        raise DataError(f"{where}: a mask without {what}; save the file again with LabelMe")
    try:
        content = base64.b64decode(shape.mask, validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: the mask is not base64; save the file again with LabelMe") from None
    crop = decode_label_png(content, name=f"{where}, mask") != 0
    left, top = (round(value) for value in shape.points[0])
    if left < 0 or top < 0 or top + crop.shape[0] > size_hw[0] or left + crop.shape[1] > size_hw[1]:
        raise DataError(
            f"{where}: a mask of {crop.shape[1]} x {crop.shape[0]} pixels at {left}, {top} reaches beyond the image "
            f"of {size_hw[1]} x {size_hw[0]} (width x height); draw it again"
        )
    return crop_rle(crop, top, left, size_hw)
