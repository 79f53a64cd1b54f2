"""COCO annotation files of anybody as ground truth, and the guards that their outlines need."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.errors import DataError
from detseg.masks import check_polygons, check_rle, segmentation_area, segmentation_box
from detseg.metrics.ground_truth import GroundTruth, GroundTruthInstance, Size, oks_sigmas, to_json

Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


def read_ground_truth(
    path: str | os.PathLike[str], *, iou_type: str = "segm", sigmas: Sequence[float] = ()
) -> GroundTruth:
    """The ground truth of a COCO annotation file, taken as pycocotools takes it: nothing is clipped or dropped for its shape.

    The file's own ``area`` and ``iscrowd`` are used; a missing area is computed. Annotations of images or categories
    that the file does not list are left out with a note, and so is the key ``ignore``, which COCO's evaluation does
    not look at.

    Args:
        path: COCO JSON.
        iou_type: what will be scored; corrupt segmentations only matter to "segm".
        sigmas: OKS falloffs, needed to score other keypoints than COCO's 17 where no category of the file has the key
            ``sigmas``.

    Raises:
        DataError: the file is not COCO JSON, an id of an image or category appears twice, or an outline or number
            cannot be used; the message says where.
    """
    path = Path(path)
    file = read_json(path, _File, "a COCO annotation file with images, annotations and categories")
    _refuse_twice([image.id for image in file.images], "image id", path)
    _refuse_twice([category.id for category in file.categories], "category id", path)
    sizes = {image.id: _size(image) for image in file.images}
    names = {image.id: image.file_name or f"image {image.id}" for image in file.images}
    labels: dict[int, int] = {category.id: label for label, category in enumerate(file.categories, 1)}
    points = max((len(category.keypoints) for category in file.categories), default=0)
    points = points or max((len(a.keypoints or ()) // 3 for a in file.annotations), default=0)
    notes = RepairLog()
    ids = Counter(annotation.id for annotation in file.annotations if isinstance(annotation.id, int))
    for number in [number for number, count in ids.items() if number == 0 or count > 1]:
        notes.add("annotation id is 0 or repeated, renumbered (pycocotools would take found for missed)", str(number))
    instances = []
    for row, annotation in enumerate(file.annotations):
        where = f"{path.name}, annotation {row if annotation.id is None else annotation.id}"
        if annotation.image_id not in sizes:
            notes.add("annotation left out: its image is not listed", f"{where} (image {annotation.image_id})")
        elif annotation.category_id not in labels:
            notes.add("annotation left out: its category is not listed", f"{where} ({annotation.category_id})")
        else:
            where = f"{where} ({names[annotation.image_id]})"
            if annotation.ignore and not annotation.iscrowd:
                notes.add('key "ignore" has no effect, as in pycocotools', where)
            label = labels[annotation.category_id]
            instances.append(_instance(annotation, label, sizes[annotation.image_id], iou_type == "segm", where))
    return GroundTruth(
        path.name,
        sizes,
        tuple(instances),
        _distinct([category.name or str(category.id) for category in file.categories], list(labels)),
        tuple(labels),
        oks_sigmas(points, sigmas or next((c.sigmas for c in file.categories if c.sigmas), ())),
        notes=notes,
    )


def read_json(path: Path, kind: Any, what: str) -> Any:
    """The content of a JSON file, checked against ``kind``. NaN and Infinity are refused: JSON has none.

    Raises:
        DataError: names the file, what is wrong and its path inside (``$.annotations[17].bbox[2]``).
    """
    try:
        return msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {error}; expected {what}") from None
    except RecursionError:
        raise DataError(f"{path}: brackets are nested too deeply; expected {what}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}; write it again (NaN and Infinity are no JSON either)") from None


def check_outline(outline: Any, size_hw: Size | None, where: str) -> Segmentation:
    """COCO's ``segmentation`` of a file as rings or RLE that native code can be trusted with; ``[]`` is none.

    Raises:
        DataError: it is corrupt, or the size of the image is not known.
    """
    if outline is None or outline == []:
        return None
    if size_hw is None:
        raise DataError(f"{where}: masks need the size of the image; add height and width to the images of the file")
    if isinstance(outline, dict):
        size, counts = outline.get("size"), outline.get("counts")
        if rle_size(outline) is None or not (
            isinstance(counts, str) or (isinstance(counts, list) and _numbers(counts))
        ):
            raise DataError(
                f"{where}: the segmentation has the keys {', '.join(outline)}; RLE has size [height, width] and counts "
                "(a text or a list of whole numbers)"
            )
        return check_rle({"size": size, "counts": counts}, size_hw, where)
    if isinstance(outline, list) and all(isinstance(ring, list) and _numbers(ring) for ring in outline):
        return check_polygons(outline, size_hw, where)
    raise DataError(f"{where}: the segmentation is neither a list of rings of numbers nor RLE; correct or remove it")


def rle_size(outline: Any) -> Size | None:
    """Height and width that an RLE of a file claims; None if it is no RLE with a size."""
    size = outline.get("size") if isinstance(outline, dict) else None
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
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    ignore: int | bool | None = 0
    segmentation: Any = None
    keypoints: list[float] | None = None
    num_keypoints: int | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation] = []


def _instance(
    annotation: _Annotation, label: int, size: Size | None, outlines: bool, where: str
) -> GroundTruthInstance:
    needed = outlines or annotation.bbox is None or (annotation.area is None and size is not None)
    checked = check_outline(annotation.segmentation, size, where) if needed else None
    box, area = annotation.bbox, annotation.area
    if box is None and checked is not None:
        box = list(segmentation_box(checked))
    if box is None or len(box) != 4:
        raise DataError(f"{where}: the box is {box}; four numbers are needed: x, y, width, height")
    if area is None:
        area = box[2] * box[3] if checked is None or size is None else segmentation_area(checked, size)
    if not math.isfinite(area) or not math.isfinite(box[2] * box[3]):
        raise DataError(f"{where}: box {box} with area {area} is too large to compute with; correct it")
    keypoints = annotation.keypoints
    labelled = annotation.num_keypoints
    if labelled is None:
        labelled = sum(visibility > 0 for visibility in (keypoints or [])[2::3])
    return GroundTruthInstance(
        annotation.image_id,
        label,
        (box[0], box[1], box[2], box[3]),
        area,
        bool(annotation.iscrowd),
        to_json(checked),
        None if keypoints is None else tuple(keypoints),
        labelled,
    )


def _size(image: _Image) -> Size | None:
    if image.height is None or image.width is None or image.height <= 0 or image.width <= 0:
        return None
    return image.height, image.width


def _numbers(values: list[Any]) -> bool:
    """Whether these are numbers that fit into float64; JSON's whole numbers have no limit."""
    return all(type(value) in (int, float) and -1e18 < value < 1e18 for value in values)


def _refuse_twice(ids: Iterable[int], what: str, path: Path) -> None:
    twice = [str(value) for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise DataError(f"{path}: {what} {', '.join(twice[:5])} appears more than once; give each its own id")


def _distinct(names: list[str | int], ids: list[int]) -> tuple[str, ...]:
    texts = [str(name) for name in names]
    return tuple(
        f"{name} (id {number})" if texts.count(name) > 1 else name for name, number in zip(texts, ids, strict=True)
    )
