"""Take the class of CVAT's shapes from one of their attributes, in place of the label."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from detseg.annotations.formats.cvat.shapes import SHAPES
from detseg.errors import DataError
from detseg.nearest import did_you_mean

UNDEFINED = "__undefined__"
"""What CVAT writes for an attribute without a value."""


def label_by_attribute(root: Element, name: str) -> None:
    """Replace the label of every shape by the value of its attribute ``name``, of the track where the shape has none;
    "" without a value. Points of skeletons keep their labels."""
    for image in root.findall("image"):
        for shape in image:
            shape.set("label", _value(shape, name))
    for track in root.findall("track"):
        of_track = _value(track, name)
        for shape in track:
            shape.set("label", _value(shape, name) or of_track)


def check_attribute(roots: Sequence[Element], name: str, source: str) -> None:
    """DataError if no shape has a value of the attribute; the message lists the attributes that have values."""
    values: dict[str, list[str]] = {}
    shapes = 0
    for element in (element for root in roots for element in root.iter()):
        shapes += element.tag in SHAPES
        for attribute in element.findall("attribute") if element.tag in (*SHAPES, "track") else ():
            text = (attribute.text or "").strip()
            if text not in ("", UNDEFINED):
                values.setdefault(attribute.get("name", ""), []).append(text)
    if shapes and name not in values:
        described = "; ".join(f"{key}: {', '.join(list(dict.fromkeys(texts))[:3])}" for key, texts in values.items())
        raise DataError(
            f"{source}: --class-attribute {name}: no shape has a value of this attribute; with values: "
            f"{described or 'none, so omit the option'}{did_you_mean(name, values)}"
        )


def _value(element: Element, name: str) -> str:
    texts = [attribute.text or "" for attribute in element.findall("attribute") if attribute.get("name") == name]
    text = texts[-1].strip() if texts else ""
    return "" if text == UNDEFINED else text
