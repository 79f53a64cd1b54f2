"""COCO's JSON as typed values; what does not fit is named by its place in the file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from detseg.errors import DataError

Whole = int | float
"""A whole number; some exporters write 3.0."""


class CocoImage(msgspec.Struct, gc=False):
    """One of ``images``. Width and height may be missing: then they are those of the file."""

    id: Whole
    file_name: str
    width: Whole | None = None
    height: Whole | None = None


class CocoCategory(msgspec.Struct, gc=False):
    """One of ``categories``. ``skeleton`` counts keypoints from 1; COCO has no ``sigmas`` (OKS falloffs)."""

    id: Whole
    name: str
    keypoints: list[str] | None = None
    skeleton: list[tuple[int, int]] | None = None
    sigmas: list[float] | None = None
    supercategory: Any = None


class CocoRle(msgspec.Struct, gc=False):
    """Run lengths, column by column: a list, or COCO's compressed string. ``size`` is height, width."""

    size: tuple[int, int]
    counts: list[int] | str


class CocoAnnotation(msgspec.Struct, gc=False):
    """One of ``annotations``. Without ``bbox`` the box is that of the segmentation."""

    image_id: Whole
    category_id: Whole
    id: Whole | None = None
    bbox: tuple[float, float, float, float] | None = None
    area: float | None = None
    iscrowd: Whole | bool | None = None
    ignore: Whole | bool | None = None
    difficult: Whole | bool | None = None
    segmentation: list[list[float]] | CocoRle | None = None
    keypoints: list[float] | None = None


class CocoFile(msgspec.Struct, gc=False):
    """A whole file. ``annotations`` may be missing: lists of pictures without truth are published without them."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation] = []


def load_coco_json(path: Path, source: str) -> CocoFile:
    """Read and check a file. A byte order mark is accepted; NaN and Infinity are not JSON and are refused.

    ``source`` is what messages call the file.

    Raises:
        DataError: the text is not JSON or not COCO's form; says where, with the value that is wrong.
        OSError: the file cannot be read.
    """
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return msgspec.json.decode(raw, type=CocoFile)
    except msgspec.ValidationError as error:
        raise DataError(_misfit(raw, str(error), source)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{source}: {error}{_around(raw, str(error))}; write the file again") from None


def whole(value: Whole, what: str, where: str) -> int:
    """``value`` as int; DataError if it has a fraction or does not fit 64 bits."""
    if isinstance(value, float) and not value.is_integer():
        raise DataError(f"{where}: {what} {value} is not a whole number")
    if not -(2**63) <= value < 2**63:
        raise DataError(f"{where}: {what} {value} does not fit 64 bits")
    return int(value)


def _around(raw: bytes, message: str) -> str:
    """The text where JSON stops being JSON."""
    position = re.search(r"byte (\d+)", message)
    if not position:
        return ""
    start = int(position[1])
    line = raw.count(b"\n", 0, start) + 1
    return f", line {line}, at {raw[start : start + 20].decode('utf-8', 'replace')!r}"


def _misfit(raw: bytes, message: str, name: str) -> str:
    """The message for JSON of another form: which annotation or image, which value."""
    problem, _, path = message.partition(" - at ")
    path = path.strip("`")
    data = json.loads(raw)
    if isinstance(data, list):
        return (
            f"{name}: a list, where COCO has an object with images, annotations and categories; if these are "
            "predictions, evaluate them with --predictions"
        )
    if _is_panoptic(data):
        return (
            f"{name}: COCO's panoptic annotations (segments_info), whose masks are in PNG files; give the file of the "
            "instances"
        )
    steps: list[str | int] = [
        int(number) if number else key for key, number in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", path)
    ]
    value, place = data, name
    for depth, step in enumerate(steps):
        value = value[step]
        if depth == 1 and isinstance(value, dict):
            place = f"{name}, {_called(data, steps[0], value)}"
    at = f" at {path}" if path else ""
    shown = "" if value is data else f", value {_shortened(value)}"
    return f"{place}: {problem}{at}{shown}; correct it in the file"


def _is_panoptic(data: Any) -> bool:
    listed = data.get("annotations") if isinstance(data, dict) else None
    return isinstance(listed, list) and any(isinstance(item, dict) and "segments_info" in item for item in listed[:1])


def _called(data: dict[str, Any], section: str | int, value: dict[str, Any]) -> str:
    kind = str(section).removesuffix("s") if section != "categories" else "category"
    image, image_id = value.get("file_name"), value.get("image_id")
    listed = data.get("images")
    for other in listed if image is None and image_id is not None and isinstance(listed, list) else ():
        if isinstance(other, dict) and other.get("id") == image_id:
            image = other.get("file_name")
    return f"{kind} {_shortened(value.get('id'))}" + (f" ({image})" if image else "")


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}..."
