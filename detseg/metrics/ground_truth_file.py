"""Read untrusted COCO annotation files as ground truth, and validate their segmentations."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from detseg.annotations.formats.coco.lenient import mend_coco, rings_of
from detseg.annotations.formats.shared.lenient_json import encoded
from detseg.annotations.instance_box import ROTATED_BOX, Box, box_problem, choose_box, cvat_rotation, rotated_box
from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.annotations.text_ids import TextIds
from detseg.errors import DataError
from detseg.json_text import JsonError, decode_json
from detseg.masks import MAX_PIXELS, check_polygons, check_rle, segmentation_area
from detseg.metrics.ground_truth import GroundTruth, GroundTruthInstance, Size, oks_sigmas, to_json

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def read_ground_truth(
    path: str | os.PathLike[str], *, iou_type: str = "segm", sigmas: Sequence[float] = ()
) -> GroundTruth:
    """Read the ground truth of a COCO annotation file as pycocotools does: no object with a box is clipped or dropped.

    A box is chosen as by the reader of data sets: one that is missing or cannot be used is that of the outline, with
    its corners sorted, or that of the keypoints; an object without these is left out, and so is an image that has no
    other object. All are noted.

    ``area`` and ``iscrowd`` of the file are used; a missing area is computed. Annotations of images or categories that
    the file does not list are skipped with a note, and so is the key ``ignore``, which COCO's evaluation ignores.

    Args:
        path: COCO JSON.
        iou_type: IoU type of the evaluation; corrupt segmentations are an error only for "segm".
        sigmas: OKS sigmas, needed for keypoints other than COCO's 17 if no category of the file has the key ``sigmas``.

    Raises:
        DataError: the file is not COCO JSON, an id of an image or category appears twice, or a segmentation or number
            cannot be used; the message contains the location.
    """
    path = Path(path)
    file, text_ids, notes = _read_file(path)
    _check_unique([image.id for image in file.images], "image id", path)
    _check_unique([category.id for category in file.categories], "category id", path)
    sizes = {image.id: _size(image) for image in file.images}
    names = {image.id: image.file_name or f"image {image.id}" for image in file.images}
    labels: dict[int, int] = {category.id: label for label, category in enumerate(file.categories, 1)}
    points = max((len(category.keypoints) for category in file.categories), default=0)
    points = points or max((len(a.keypoints or ()) // 3 for a in file.annotations), default=0)
    ids = Counter(annotation.id for annotation in file.annotations if isinstance(annotation.id, int))
    for number in [number for number, count in ids.items() if number == 0 or count > 1]:
        notes.add("annotation id is 0 or repeated, renumbered (pycocotools would count it as missed)", str(number))
    instances = []
    lost: set[int] = set()
    boxes_changed = False
    for row, annotation in enumerate(file.annotations):
        where = f"{path.name}, annotation {row if annotation.id is None else annotation.id}"
        if annotation.image_id not in sizes:
            notes.add("annotation skipped: its image is not listed", f"{where} (image {annotation.image_id})")
        elif annotation.category_id not in labels:
            notes.add("annotation skipped: its category is not listed", f"{where} ({annotation.category_id})")
        else:
            where = f"{where} ({names[annotation.image_id]})"
            if annotation.ignore and not annotation.iscrowd:
                notes.add('key "ignore" has no effect, as in pycocotools', where)
            label = labels[annotation.category_id]
            size = sizes[annotation.image_id]
            instance = _instance(annotation, label, size, iou_type == "segm", where, notes)
            if instance is None:
                lost.add(annotation.image_id)
            else:
                instances.append(instance)
            boxes_changed |= instance is None or instance.box != annotation.bbox
    left_out = lost - {instance.image_id for instance in instances}
    for image_id in sorted(left_out):
        notes.add("image not evaluated: it lost all its objects", names[image_id])
    return GroundTruth(
        path.name,
        {image_id: size for image_id, size in sizes.items() if image_id not in left_out},
        tuple(instances),
        _unique_names([category.name or str(category.id) for category in file.categories], list(labels)),
        tuple(labels),
        oks_sigmas(points, sigmas or next((c.sigmas for c in file.categories if c.sigmas), ())),
        text_ids=text_ids,
        notes=notes,
        left_out=frozenset(left_out),
        boxes_changed=boxes_changed,
    )


def _read_file(path: Path) -> tuple[_File, TextIds, RepairLog]:
    """The file, its text ids, and notes about values that are written in another type."""
    kind = "a COCO annotation file with images, annotations and categories"
    try:
        return decode_json(path.read_bytes(), _File), TextIds(), RepairLog()
    except JsonError:
        value = read_json(path, Any, kind)
    if not isinstance(value, dict):
        read_json(path, _File, kind)  # raises
    mended, text_ids, notes = mend_coco(value, _File, str(path))
    return msgspec.json.decode(encoded(mended, str(path)), type=_File), text_ids, notes


def read_json(path: Path, kind: Any, expected: str) -> Any:
    """Read a JSON file and check it against the type ``kind``. NaN and Infinity are rejected: they are not JSON.

    Raises:
        DataError: contains the file, the error and its JSON path (``$.annotations[17].bbox[2]``).
    """
    try:
        return decode_json(path.read_bytes(), kind)
    except JsonError as error:
        at = f" - at `{error.at}`" if error.at else ""
        if error.is_json:
            raise DataError(f"{path}: {error}{at}; expected {expected}") from None
        raise DataError(f"{path} is not JSON: {error}; write it again (NaN and Infinity are not valid JSON)") from None


def check_segmentation(segmentation: Any, size_hw: Size | None, where: str) -> Segmentation:
    """Validate COCO's ``segmentation`` of a file: rings or RLE that are safe for native code.

    No segmentation (``[]``, ``{}``, ``""``) becomes None, and a flat list of numbers one ring.

    Raises:
        DataError: it is corrupt, or the size of the image is unknown.
    """
    if segmentation in (None, [], {}, ""):
        return None
    segmentation = rings_of(segmentation)
    if size_hw is None:
        raise DataError(f"{where}: masks need the size of the image; add height and width to the images of the file")
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if rle_size(segmentation) is None or not (
            isinstance(counts, str) or (isinstance(counts, list) and _fit_float64(counts))
        ):
            raise DataError(
                f"{where}: the segmentation has the keys {', '.join(segmentation)}; RLE has size [height, width] and "
                "counts (a string or a list of integers)"
            )
        return check_rle({"size": size, "counts": counts}, size_hw, where)
    if isinstance(segmentation, list) and all(isinstance(ring, list) and _fit_float64(ring) for ring in segmentation):
        return check_polygons(segmentation, size_hw, where)
    raise DataError(f"{where}: the segmentation is neither a list of polygon rings nor RLE; correct or remove it")


def rle_size(segmentation: Any) -> Size | None:
    """Height and width stored in an RLE of a file; None if it is not an RLE with a size."""
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        return None
    return size[0], size[1]


class _Image(msgspec.Struct):
    id: Id
    file_name: str = ""
    height: int | None = None
    width: int | None = None


class _Category(msgspec.Struct):
    id: Id
    name: str | int = ""
    keypoints: list[str] = []
    sigmas: list[float] = []


class _Annotation(msgspec.Struct):
    image_id: Id
    category_id: Id
    id: Any = None
    bbox: Box | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    ignore: int | bool | None = 0
    segmentation: Any = None
    keypoints: list[float] | None = None
    num_keypoints: int | None = None
    attributes: Any = None


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] = []


def _instance(
    annotation: _Annotation, label: int, size: Size | None, with_masks: bool, where: str, notes: RepairLog
) -> GroundTruthInstance | None:
    """One object; None, noted, if there is nothing to take its box from."""
    stated, area, size_hw = annotation.bbox, annotation.area, size or (MAX_PIXELS, MAX_PIXELS)
    is_sound = stated is not None and not box_problem(stated, size_hw)
    needed = with_masks or stated is None or (size is not None and (area is None or not is_sound))
    segmentation = check_segmentation(annotation.segmentation, size, where) if needed else None
    rotation = cvat_rotation(annotation.attributes)
    if rotation and stated is not None and not annotation.segmentation:
        notes.add(ROTATED_BOX, where)
        stated = rotated_box(stated, rotation)
    points = np.asarray(annotation.keypoints or [], np.float64)
    points = points.reshape(-1, 3) if points.size % 3 == 0 else np.zeros((0, 3))
    box = choose_box(stated, segmentation, points, size_hw, where, notes)
    if box is None:
        notes.add("annotation skipped: box, outline and keypoints are missing", where)
        return None
    problem = box_problem(box, size_hw)
    if problem and not annotation.iscrowd:
        notes.add(f"object counted as missed, as in pycocotools: its box {problem}", where)
    if area is not None and area <= 0 and box != annotation.bbox:
        area = None
    if area is None:
        area = box[2] * box[3] if segmentation is None or size is None else segmentation_area(segmentation, size)
    if not math.isfinite(area) or not math.isfinite(box[2] * box[3]):
        raise DataError(f"{where}: box {box} with area {area} is too large; correct it")
    keypoints = annotation.keypoints
    labelled = annotation.num_keypoints
    if labelled is None:
        labelled = sum(visibility > 0 for visibility in (keypoints or [])[2::3])
    return GroundTruthInstance(
        annotation.image_id,
        label,
        box,
        area,
        bool(annotation.iscrowd),
        to_json(segmentation),
        None if keypoints is None else tuple(keypoints),
        labelled,
    )


def _size(image: _Image) -> Size | None:
    if image.height is None or image.width is None or image.height <= 0 or image.width <= 0:
        return None
    return image.height, image.width


def _fit_float64(values: list[Any]) -> bool:
    """Whether all values are numbers that fit into float64; integers in JSON have no limit."""
    return all(type(value) in (int, float) and -1e18 < value < 1e18 for value in values)


def _check_unique(ids: Iterable[int], name: str, path: Path) -> None:
    duplicates = [str(value) for value, count in Counter(ids).items() if count > 1]
    if duplicates:
        raise DataError(f"{path}: {name} {', '.join(duplicates[:5])} appears more than once; use unique ids")


def _unique_names(names: list[str | int], ids: list[int]) -> tuple[str, ...]:
    texts = [str(name) for name in names]
    return tuple(
        f"{name} (id {number})" if texts.count(name) > 1 else name for name, number in zip(texts, ids, strict=True)
    )
