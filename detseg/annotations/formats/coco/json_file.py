"""COCO's JSON as typed values; what does not fit is named by its place in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.coco.outlines import Outline, Outlines, read_outlines
from detseg.errors import DataError

Whole = int | float
"""A whole number; some exporters write 3.0."""

Ids = npt.NDArray[np.int64]

TABLE = 4_000_000
"""Ids of images that lie this close together are looked up in a table; COCO's go to 600,000."""


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
    segmentation: Outline = None
    keypoints: list[float] | None = None


class _QuickAnnotation(CocoAnnotation, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # read by another reader


class _File(msgspec.Struct, gc=False):
    """A whole file. ``annotations`` may be missing: lists of images without ground truth are published without them."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation] = []


class _QuickFile(msgspec.Struct, gc=False):
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[_QuickAnnotation] = []


@dataclass
class CocoAnnotations:
    """N annotations as the file has them, each key in a column (see :class:`CocoAnnotation`).

    Attributes:
        image_id, category_id, id: int64 [N], or a list where not all are written as whole numbers of 64 bits.
        bbox, area: float64 [N, 4] and [N]; NaN where there is none.
        iscrowd, ignore, difficult: bool [N].
        keypoints: those that are there, by position.
        order: int64 [N], positions in the file by the row of their image; those of unknown images come first.
        outlines: in that order.
    """

    image_id: Ids | list[Whole]
    category_id: Ids | list[Whole]
    id: Ids | list[Whole | None]
    bbox: npt.NDArray[np.float64]
    area: npt.NDArray[np.float64]
    iscrowd: npt.NDArray[np.bool_]
    ignore: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    keypoints: dict[int, list[float]]
    order: Ids
    outlines: Outlines

    def __len__(self) -> int:
        return len(self.image_id)


@dataclass
class CocoFile:
    """A whole file."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: CocoAnnotations


def load_coco_json(path: Path, source: str) -> CocoFile:
    """Read and check a file. A byte order mark is accepted; NaN and Infinity are not JSON and are refused.

    ``source`` is what messages call the file.

    Raises:
        DataError: the text is not JSON or not COCO's form; says where, with the value that is wrong.
        OSError: the file cannot be read.
    """
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        file = msgspec.json.decode(raw, type=_QuickFile)
        image_id = _numbers([annotation.image_id for annotation in file.annotations])
        order = np.argsort(rows_of(image_id, [image.id for image in file.images]), kind="stable")
        texts = [annotation.segmentation for annotation in file.annotations]
        texts = [texts[i] for i in order.tolist()]
        outlines = read_outlines(texts)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _refusal(raw, source) from None
    del raw, texts
    number, listed, nothing = len(file.annotations), file.annotations, (np.nan,) * 4
    corners = chain.from_iterable([nothing if a.bbox is None else a.bbox for a in listed])
    annotations = CocoAnnotations(
        image_id=image_id,
        category_id=_numbers([a.category_id for a in listed]),
        id=_numbers([a.id for a in listed]),
        bbox=np.fromiter(corners, np.float64, 4 * number).reshape(-1, 4),
        area=np.array([a.area for a in listed], np.float64),  # None becomes NaN
        iscrowd=np.fromiter([bool(a.iscrowd) for a in listed], np.bool_, number),
        ignore=np.fromiter([bool(a.ignore) for a in listed], np.bool_, number),
        difficult=np.fromiter([bool(a.difficult) for a in listed], np.bool_, number),
        keypoints={i: a.keypoints for i, a in enumerate(listed) if a.keypoints},
        order=order,
        outlines=outlines,
    )
    return CocoFile(file.images, file.categories, annotations)


def _refusal(raw: bytes, source: str) -> DataError:
    """What is wrong with a file, by the reader that looks at everything in the order of the file."""
    try:
        msgspec.json.decode(raw, type=_File)
    except msgspec.ValidationError as error:
        try:
            return DataError(_misfit(raw, str(error), source))
        except json.JSONDecodeError as broken:  # further on
            return DataError(f"{source}: {broken}; write the file again")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return DataError(f"{source}: {error}{_around(raw, str(error))}; write the file again")
    raise AssertionError(f"{source}: refused in parts and accepted as a whole")


def whole(value: Whole, what: str, where: str) -> int:
    """``value`` as int; DataError if it has a fraction or does not fit 64 bits."""
    if isinstance(value, float) and not value.is_integer():
        raise DataError(f"{where}: {what} {value} is not a whole number")
    if not -(2**63) <= value < 2**63:
        raise DataError(f"{where}: {what} {value} does not fit 64 bits")
    return int(value)


def rows_of(values: Ids | Sequence[Whole], among: Sequence[Whole]) -> Ids:
    """int64 [N]: the position of each of ``values`` in ``among``, the last one of equals; -1 where there is none."""
    known = _numbers(list(among))
    if not isinstance(values, np.ndarray) or not isinstance(known, np.ndarray):
        position = {value: i for i, value in enumerate(among)}
        return np.array([position.get(value, -1) for value in values], np.int64)
    if not len(known):
        return np.full(len(values), -1)
    lowest, highest = int(known.min()), int(known.max())
    if highest - lowest < TABLE:  # one look into a table, in place of twenty comparisons
        table = np.full(highest - lowest + 2, -1)
        table[known - lowest] = np.arange(len(known))
        return table[np.where((values >= lowest) & (values <= highest), values - lowest, -1)]
    order = np.argsort(known, kind="stable")
    nearest = order[np.searchsorted(known, values, side="right", sorter=order) - 1]
    return np.where(known[nearest] == values, nearest, -1)


def _numbers(values: list[Any]) -> Any:
    """int64 [N] if all are written as whole numbers and fit; else the list."""
    array = np.array(values) if values else np.zeros(0, np.int64)
    return array if array.dtype == np.int64 else values


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
