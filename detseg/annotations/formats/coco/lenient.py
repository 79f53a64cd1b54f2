"""Read COCO files whose values are written in other types: numbers in quotes, text ids, flat outlines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from detseg.annotations.formats.shared.lenient_json import Mender, shortened
from detseg.annotations.text_ids import WHOLE, TextIds

_SEPARATORS = re.compile(r"[\s,;]+")


def mend_coco(value: dict[str, Any], schema: Any, source: str) -> tuple[Any, TextIds, Any]:
    """A decoded COCO file in the types of ``schema``, its text ids, and the notes.

    Text ids that are whole numbers are read as these; other texts are numbered after the ids that are numbers.

    Raises:
        DataError: all kinds of values that cannot be read, with their counts.
    """
    images, categories, annotations = (_objects(value, key) for key in ("images", "categories", "annotations"))
    names = _names(value, images)
    mender = Mender(source, names)
    text_ids = TextIds(
        _number_ids(images, annotations, "images", "image_id", mender),
        _number_ids(categories, annotations, "categories", "category_id", mender),
    )
    texts = [item["id"] for item in annotations if isinstance(item.get("id"), str)]
    if not all(map(WHOLE.fullmatch, texts)):
        mender.notes.add("text ids of annotations not used", f"{source}: {shortened(texts[0])}")
        for item in annotations:
            item["id"] = None
    for item, name in zip(value.get("annotations") or (), names["annotations"], strict=False):
        if isinstance(item, dict):
            _mend_shape(item, f"{source}, {name}", mender)
    return mender.mend(value, schema), text_ids, mender.notes


def rings_of(value: Any) -> Any:
    """An outline with a flat list of numbers, or with a list of x, y pairs, as a list of rings; else ``value``."""
    if not isinstance(value, list) or not value:
        return value
    if not any(isinstance(item, (list, dict)) for item in value):
        return [value]
    if len(value) >= 3 and all(_is_point(item) for item in value):
        return [[number for point in value for number in point]]
    return [
        [number for point in ring for number in point]
        if isinstance(ring, list) and len(ring) >= 3 and all(_is_point(item) for item in ring)
        else ring
        for ring in value
    ]


def _objects(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = value.get(key)
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _names(value: dict[str, Any], images: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The name of each entry in messages."""
    file_of = {str(image.get("id")): str(image.get("file_name", "")) for image in images}
    names: dict[str, list[str]] = {}
    for section, word in (("images", "image"), ("categories", "category"), ("annotations", "annotation")):
        listed = value.get(section)
        names[section] = []
        for position, item in enumerate(listed if isinstance(listed, list) else ()):
            entry = item if isinstance(item, dict) else {}
            more = entry.get("file_name") or entry.get("name") or file_of.get(str(entry.get("image_id")))
            number = entry.get("id")
            text = f"{word} {position if number is None else shortened(number)}"
            names[section].append(f"{text} ({more})" if isinstance(more, str) and more else text)
    return names


def _number_ids(
    entries: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], section: str, key: str, mender: Mender
) -> dict[int, str]:
    """Replace the text ids of a section, and of the annotations that refer to it, by numbers; number -> text."""
    texts = [item["id"] for item in entries if isinstance(item.get("id"), str)]
    if all(map(WHOLE.fullmatch, texts)):
        return {int(text): text for text in texts}  # converted with all other numbers in quotes
    numbers = [int(item["id"]) for item in entries if type(item.get("id")) in (int, float)]
    number_of = {str(number): number for number in numbers}
    first = max([0, *(number for number in numbers if number < 2**62)]) + 1
    seen: set[str] = set()
    for item in entries:
        text = item.get("id")
        if not isinstance(text, str):
            continue
        if text.strip() in seen or not text.strip():
            mender.problem(f"{section}.id: a text that is empty or used twice", text, "")
        seen.add(text.strip())
        item["id"] = number_of.setdefault(text.strip(), first + len(number_of) - len(numbers))
    for position, item in enumerate(annotations):
        written = item.get(key)
        text = str(int(written)) if type(written) is float and written.is_integer() else str(written).strip()
        if text in number_of:
            item[key] = number_of[text]
        elif isinstance(written, str):
            mender.problem(
                f"annotations.{key}: not among the ids of the {section}", written, _annotation_name(item, position)
            )
            item[key] = 0
    mender.notes.add(f"text ids numbered ({section}.id)", f"{len(texts)} ids such as {shortened(texts[0])}")
    return {number: text for text, number in number_of.items() if text in seen}


def _annotation_name(item: dict[str, Any], position: int) -> str:
    number = item.get("id")
    return f"annotation {position if number is None else number}"


def _mend_shape(item: dict[str, Any], where: str, mender: Mender) -> None:
    """Give box, outline and keypoints of one annotation the shape of COCO's lists."""
    box = item.get("bbox")
    if isinstance(box, str) and len(parts := _SEPARATORS.split(box.strip(" []()"))) == 4:
        item["bbox"] = parts
    elif isinstance(box, list) and len(box) == 1 and isinstance(box[0], list):
        mender.notes.add("box in a list read", where)
        item["bbox"] = box[0]
    elif isinstance(box, list) and len(box) == 4 and all(number is None for number in box):
        item["bbox"] = []
    outline = item.get("segmentation")
    rings = rings_of(outline)
    if rings is not outline and rings != outline:
        mender.notes.add("outline without a list of rings read as one ring", where)
        item["segmentation"] = rings
    points = item.get("keypoints")
    if isinstance(points, list) and points and all(isinstance(point, list) and len(point) == 3 for point in points):
        mender.notes.add("keypoints in lists of three read", where)
        item["keypoints"] = [number for point in points for number in point]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not any(isinstance(number, (list, dict)) for number in value)
