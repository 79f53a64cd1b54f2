"""Read COCO JSON as typed values, with errors that state the position in the file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.coco.lenient import mend_coco
from detseg.annotations.formats.coco.outlines import Outline, Outlines, read_outlines
from detseg.annotations.formats.shared.lenient_json import encoded, shortened
from detseg.annotations.instance_box import cvat_rotation
from detseg.annotations.other_tools import other_tool
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.text_ids import TextIds
from detseg.errors import DataError
from detseg.json_text import JsonError, check_doubled_keys, problem_of
from detseg.media.files import read_bytes

Whole = int | float
"""A whole number; some exporters write 3.0."""

Ids = npt.NDArray[np.int64]

TABLE = 4_000_000
"""Image ids within a range of this size are looked up in a table; COCO's ids go up to 600,000."""


class CocoImage(msgspec.Struct, gc=False):
    """One of ``images``. Width and height may be missing: then they are read from the image file.

    The other keys are those of frames of videos, see ``video_frames.py``.
    """

    id: Whole
    file_name: str
    width: Whole | None = None
    height: Whole | None = None
    video_id: Any = None
    frame_id: Any = None
    frame_index: Any = None
    frame_number: Any = None
    frame: Any = None


class CocoCategory(msgspec.Struct, gc=False):
    """One of ``categories``. ``skeleton`` counts keypoints from 1; COCO has no ``sigmas`` (OKS falloffs)."""

    id: Whole
    name: str
    keypoints: list[str] | None = None
    skeleton: list[tuple[int, int]] | None = None
    sigmas: list[float] | None = None
    supercategory: Any = None


class CocoAnnotation(msgspec.Struct, gc=False):
    """One of ``annotations``. Without ``bbox`` the box is computed from the segmentation."""

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


class _RawAnnotation(CocoAnnotation, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw(b"")  # type: ignore[assignment]  # parsed by read_outlines
    attributes: msgspec.Raw = msgspec.Raw(b"")  # of CVAT; parsed by _rotation


class _File(msgspec.Struct, gc=False):
    """A whole file. ``annotations`` may be missing: image lists are published without ground truth."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation] = []
    videos: Any = None


class _RawFile(msgspec.Struct, gc=False):
    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[_RawAnnotation] = []
    videos: Any = None


@dataclass
class CocoAnnotations:
    """N annotations as written in the file, one column per key (see :class:`CocoAnnotation`).

    Attributes:
        image_id, category_id, id: int64 [N], or a list if not all are written as 64-bit whole numbers.
        bbox, area: float64 [N, 4] and [N]; NaN if missing.
        iscrowd, ignore, difficult: bool [N].
        keypoints: position in the file -> keypoints, for annotations that have them.
        rotation: position in the file -> degrees clockwise, for the rotated boxes of CVAT's exports.
        order: int64 [N], positions in the file sorted by the row of their image; those of unknown images come first.
        outlines: segmentations, in this order.
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
    rotation: dict[int, float]
    order: Ids
    outlines: Outlines

    def __len__(self) -> int:
        return len(self.image_id)


@dataclass
class CocoFile:
    """A whole file; ``text_ids`` and ``notes`` are those of values that were written in another type."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: CocoAnnotations
    videos: list[Any]
    text_ids: TextIds = field(default_factory=TextIds)
    notes: RepairLog = field(default_factory=RepairLog)


def load_coco_json(path: Path, source: str) -> CocoFile:
    """Read and validate a file. A byte order mark is accepted; NaN and Infinity are not JSON and are rejected.

    Values of another type that can only mean one thing (numbers in quotes, text ids) are read and noted.
    ``source`` is the name of the file in messages.

    Raises:
        DataError: the text is not JSON or not in COCO format; with all kinds of invalid values and their counts.
        OSError: the file cannot be read.
    """
    raw = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    text_ids, notes = TextIds(), RepairLog()
    try:
        file, image_id, order, outlines = _decoded(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        value = _any_json(raw, source)
        _check_object(value, raw, source)
        mended, text_ids, notes = mend_coco(value, _File, source)
        file, image_id, order, outlines = _decoded(encoded(mended, source))
    try:
        check_doubled_keys(raw)
    except JsonError as error:
        raise DataError(f"{source}: {error}") from None
    del raw
    number, listed, no_box = len(file.annotations), file.annotations, (np.nan,) * 4
    boxes = chain.from_iterable([no_box if a.bbox is None else a.bbox for a in listed])
    annotations = CocoAnnotations(
        image_id=image_id,
        category_id=_numbers([a.category_id for a in listed]),
        id=_numbers([a.id for a in listed]),
        bbox=np.fromiter(boxes, np.float64, 4 * number).reshape(-1, 4),
        area=np.array([a.area for a in listed], np.float64),  # None becomes NaN
        iscrowd=np.fromiter([bool(a.iscrowd) for a in listed], np.bool_, number),
        ignore=np.fromiter([bool(a.ignore) for a in listed], np.bool_, number),
        difficult=np.fromiter([bool(a.difficult) for a in listed], np.bool_, number),
        keypoints={i: a.keypoints for i, a in enumerate(listed) if a.keypoints},
        rotation={i: angle for i, a in enumerate(listed) if a.attributes and (angle := _rotation(a.attributes))},
        order=order,
        outlines=outlines,
    )
    videos = file.videos if isinstance(file.videos, list) else []
    return CocoFile(file.images, file.categories, annotations, videos, text_ids, notes)


def _rotation(attributes: msgspec.Raw) -> float:
    """Degrees of ``attributes.rotation``; 0 for attributes of another kind."""
    text = bytes(attributes)
    if b'"rotation"' not in text:  # nearly always
        return 0.0
    return cvat_rotation(msgspec.json.decode(text))


def _decoded(raw: bytes) -> tuple[_RawFile, Any, Ids, Outlines]:
    """The file, its image ids as a column, the order of the annotations by image, and their outlines in this order."""
    file = msgspec.json.decode(raw, type=_RawFile)
    image_id = _numbers([annotation.image_id for annotation in file.annotations])
    order = np.argsort(rows_of(image_id, [image.id for image in file.images]), kind="stable")
    texts = [annotation.segmentation for annotation in file.annotations]
    return file, image_id, order, read_outlines([texts[i] for i in order.tolist()])


def _any_json(raw: bytes, source: str) -> Any:
    """Any valid JSON; DataError with the position for anything else."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError(f"{source}: {problem_of(error)}{_position(raw, str(error))}; export the file again") from None


def _check_object(value: Any, raw: bytes, source: str) -> None:
    """DataError for JSON that is no COCO file as a whole: a list, the file of another tool, panoptic annotations."""
    is_coco = isinstance(value, dict) and {"images", "annotations"} <= value.keys()
    tool = "" if is_coco else other_tool(raw)
    if tool:
        raise DataError(f"{source}: {tool}")
    if isinstance(value, list):
        raise DataError(
            f"{source}: a list, but COCO expects an object with images, annotations and categories; if these are "
            "predictions, evaluate them with --predictions"
        )
    if not isinstance(value, dict):
        raise DataError(f"{source}: {shortened(value)}, but COCO expects an object; export the file again")
    listed = value.get("annotations")
    if isinstance(listed, list) and any(isinstance(item, dict) and "segments_info" in item for item in listed[:1]):
        raise DataError(
            f"{source}: COCO's panoptic annotations (segments_info), with masks in PNG files; pass the instances file"
        )


def whole(value: Whole, name: str, where: str) -> int:
    """``value`` as int; DataError if it has a fraction or does not fit into 64 bits."""
    if isinstance(value, float) and not value.is_integer():
        raise DataError(f"{where}: {name} {value} is not a whole number")
    if not -(2**63) <= value < 2**63:
        raise DataError(f"{where}: {name} {value} does not fit into 64 bits")
    return int(value)


def rows_of(values: Ids | Sequence[Whole], ids: Sequence[Whole]) -> Ids:
    """int64 [N]: the position of each of ``values`` in ``ids``, the last one of duplicates; -1 if it is not there."""
    id_array = _numbers(list(ids))
    if not isinstance(values, np.ndarray) or not isinstance(id_array, np.ndarray):
        position = {value: i for i, value in enumerate(ids)}
        return np.array([position.get(value, -1) for value in values], np.int64)
    if not len(id_array):
        return np.full(len(values), -1)
    lowest, highest = int(id_array.min()), int(id_array.max())
    if highest - lowest < TABLE:  # one table lookup instead of twenty comparisons
        table = np.full(highest - lowest + 2, -1)
        table[id_array - lowest] = np.arange(len(id_array))
        return table[np.where((values >= lowest) & (values <= highest), values - lowest, -1)]
    order = np.argsort(id_array, kind="stable")
    nearest = order[np.searchsorted(id_array, values, side="right", sorter=order) - 1]
    return np.where(id_array[nearest] == values, nearest, -1)


def _numbers(values: list[Any]) -> Any:
    """int64 [N] if all are written as whole numbers and fit into 64 bits; else the list."""
    array = np.array(values) if values else np.zeros(0, np.int64)
    return array if array.dtype == np.int64 else values


def _position(raw: bytes, message: str) -> str:
    """Line and text of a JSON syntax error."""
    position = re.search(r"byte (\d+)", message)
    if not position:
        return ""
    start = int(position[1])
    line = raw.count(b"\n", 0, start) + 1
    return f", line {line}, at {raw[start : start + 20].decode('utf-8', 'replace')!r}"
