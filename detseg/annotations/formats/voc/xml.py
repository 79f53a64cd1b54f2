"""Parse the Pascal VOC XML of one image into typed values."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element

from detseg.annotations.formats.shared.xml_file import parse_xml
from detseg.errors import DataError

EXACT = Context(prec=60)
"""Corners are subtracted as decimals: 10.3 - 10.1 is 0.2, and boxes of the writer are read back bit-identical."""

MAX_COORDINATE = 1e9
"""Pixels. A larger coordinate is a corrupt number."""

_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "", "unspecified")


@dataclass(frozen=True)
class VocObject:
    """One object: class name, box float x, y, width, height in pixels of the annotated image, difficult."""

    name: str
    box_xywh: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass(frozen=True)
class VocFile:
    """The annotation of one image.

    Attributes:
        file: path of the XML file, relative to the data folder.
        filename: name of the image according to the file; "" if not stated.
        size_hw: height and width; None if missing or 0.
        objects: in the order of the file.
        parts: number of parts of objects (heads, hands), which are ignored.
        polygons: number of objects that also have a polygon, which is ignored.
    """

    file: str
    filename: str
    size_hw: tuple[int, int] | None
    objects: list[VocObject]
    parts: int
    polygons: int


def parse_voc(root: Path, file: str, *, one_based: bool = False) -> VocFile:
    """Read ``root / file``. Elements may be in any order; names and boxes of an object's parts are ignored.

    Args:
        one_based: corners are the original VOC pixel indices, from 1 and inclusive. Then x = xmin - 1,
            y = ymin - 1, width = xmax - xmin + 1, height = ymax - ymin + 1.

    Raises:
        DataError: not XML, not VOC, or a value that is missing or not a number: with file, object and value.
        OSError: the file cannot be read.
    """
    tree = parse_xml(root / file, file)
    if tree.tag != "annotation":
        raise DataError(
            f"{file}: the root element is <{tree.tag}>, expected <annotation> (Pascal VOC); remove the file"
        )
    objects, parts, polygons = [], 0, 0
    for number, element in enumerate(tree.findall("object"), 1):
        name = _text(element, "name")
        where = f"{file}, object {number}" + (f" ({name})" if name else "")
        if not name:
            raise DataError(f"{where}: no <name>; add the class name or remove the object")
        box = element.find("bndbox")
        if box is None:
            raise DataError(f"{where}: no <bndbox>; add a box or remove the object")
        parts += len(element.findall("part"))
        polygons += element.find("polygon") is not None
        objects.append(VocObject(name, _box(box, one_based, where), _flag(element, "difficult", where), where))
    return VocFile(file, _text(tree, "filename"), _size(tree, file), objects, parts, polygons)


def _box(element: Element, one_based: bool, where: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_number(element, tag, where) for tag in ("xmin", "ymin", "xmax", "ymax"))
    if one_based:  # the smaller corner, which may come second
        x1, x2 = (EXACT.subtract(x1, Decimal(1)), x2) if x1 <= x2 else (x1, EXACT.subtract(x2, Decimal(1)))
        y1, y2 = (EXACT.subtract(y1, Decimal(1)), y2) if y1 <= y2 else (y1, EXACT.subtract(y2, Decimal(1)))
    return float(x1), float(y1), float(EXACT.subtract(x2, x1)), float(EXACT.subtract(y2, y1))


def _number(element: Element, tag: str, where: str) -> Decimal:
    if element.find(tag) is None:
        raise DataError(f"{where}: no <{tag}>; complete the box or remove the object")
    text = _text(element, tag)
    try:
        value = float(text)
        if isfinite(value) and abs(value) <= MAX_COORDINATE:
            return EXACT.create_decimal(text)
    except (ValueError, InvalidOperation):
        pass
    raise DataError(f"{where}: {tag} {_quoted(text)} is not a number of pixels; correct it")


def _flag(element: Element, tag: str, where: str) -> bool:
    text = _text(element, tag).lower()
    if text not in (*_YES, *_NO):
        raise DataError(f"{where}: {tag} {_quoted(text)} is neither 0 nor 1; correct it")
    return text in _YES


def _size(tree: Element, file: str) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    numbers = []
    for tag in ("height", "width"):
        text = _text(size, tag) or "0"
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (0 <= value <= MAX_COORDINATE and value.is_integer()):
            raise DataError(f"{file}: {tag} {_quoted(text)} of <size> is not a whole number of pixels; correct it")
        numbers.append(int(value))
    return (numbers[0], numbers[1]) if all(numbers) else None


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
