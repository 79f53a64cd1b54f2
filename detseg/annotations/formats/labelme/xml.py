"""Read XML files of the old LabelMe web tool: polygons and painted masks."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from detseg.annotations.formats.shared.shapes import ShapeAnnotation, ShapeInstance
from detseg.annotations.formats.shared.text_file import parse_finite
from detseg.annotations.formats.shared.xml_file import parse_xml
from detseg.annotations.image_lookup import ImageReference
from detseg.annotations.instance_box import extent_xywh
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.masks import mask_to_rle, segmentation_area
from detseg.media.files import open_file

_HEAD = 2**20  # bytes read to detect the format


def is_labelme_xml(path: Path) -> bool:
    """Whether the root is ``annotation`` and the file has elements of LabelMe and none of Pascal VOC; see
    ``find_labelme``."""
    with open_file(path) as file:
        head = file.read(_HEAD)
    if not re.search(rb"<annotation[\s>]", head) or re.search(rb"<(bndbox|size)[\s>]", head):
        return False
    return re.search(rb"<(polygon|segm|imagesize)[\s>]", head) is not None


def read_labelme_xml(base: Path, name: str, files: list[str], notes: RepairLog) -> ShapeAnnotation:
    """The image and the objects of one file; objects marked as deleted are left out.

    Args:
        base: the data folder.
        name: the file, relative to ``base``.
        files: all files of the folder, searched for painted masks.

    Raises:
        DataError: not a LabelMe file, or invalid numbers or masks.
    """
    root = parse_xml(base / name, name)
    if root.tag != "annotation":
        raise DataError(f"{name}: the root is <{root.tag}>, expected <annotation> (LabelMe); remove the file")
    filename = _text(root, "filename") or PurePosixPath(name).stem
    folder = _text(root, "folder")
    reference = ImageReference(f"{folder}/{filename}" if folder else filename, name.rpartition("/")[0])
    annotation = ShapeAnnotation(reference, name, _size_hw(root, name))
    for number, item in enumerate(root.findall("object")):
        class_name = _text(item, "name")
        where = f"{name}, object {_text(item, 'id') or number} ({class_name})"
        if _text(item, "deleted") == "1":
            notes.add("deleted object left out", where)
            continue
        polygon, painted = item.find("polygon"), item.find("segm")
        if polygon is not None:
            points = [(_number(point, "x", where), _number(point, "y", where)) for point in polygon.findall("pt")]
            if _text(item, "type") == "bounding_box" and len(points) == 4:
                annotation.instances.append(ShapeInstance(class_name, where, extent_xywh(points)))
            else:
                annotation.instances.append(ShapeInstance(class_name, where, rings=[points]))
        elif painted is not None:
            annotation.instances.append(
                _add_painted_mask(painted, ShapeInstance(class_name, where), base, files, notes)
            )
        else:
            raise DataError(f"{where}: neither polygon nor painted mask; complete or remove it")
    return annotation


def _add_painted_mask(
    painted: Element, instance: ShapeInstance, base: Path, files: list[str], notes: RepairLog
) -> ShapeInstance:
    """``instance`` with the mask of its PNG file, which is found by name among the files of the data folder."""
    name = PurePosixPath(_text(painted, "mask").replace("\\", "/")).name
    matches = [file for file in files if name and file.rpartition("/")[2] == name]
    if len(matches) != 1:
        raise DataError(
            f"{instance.where}: its mask {name or '(no name)'} was found {len(matches)} times in {base}; keep one file "
            "with that name, in Masks/"
        )
    # With this range no value above 0 becomes 0, whatever the number of bits.
    pixels = decode_image(base / matches[0], upright=False, value_range=(0, 1))
    mask = mask_to_rle(pixels.max(axis=2))  # painted in any color
    box = painted.find("box")
    if segmentation_area(mask, (mask["size"][0], mask["size"][1])):
        instance.mask = mask
    elif box is not None:
        x1, y1, x2, y2 = (_number(box, tag, instance.where) for tag in ("xmin", "ymin", "xmax", "ymax"))
        instance.box_xywh = [x1, y1, x2 - x1, y2 - y1]
        notes.add("empty mask: the box in the file is used", instance.where)
    else:
        instance.box_xywh = [0.0, 0.0, 0.0, 0.0]
    return instance


def _size_hw(root: Element, name: str) -> tuple[int, int] | None:
    size = root.find("imagesize")
    if size is None or not _text(size, "nrows") or not _text(size, "ncols"):
        return None
    height, width = _number(size, "nrows", name), _number(size, "ncols", name)
    if (height, width) == (-1, -1):  # the tool writes this for an unknown size
        return None
    if not (height.is_integer() and width.is_integer() and height > 0 and width > 0):
        raise DataError(f"{name}: imagesize of {width:g} x {height:g} is not a valid size; correct or remove it")
    return int(height), int(width)


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(element: Element, tag: str, where: str) -> float:
    text = _text(element, tag)
    value = parse_finite(text)
    if value is None:
        raise DataError(f"{where}: <{tag}> {text!r} is not a finite number; correct it")
    return value
