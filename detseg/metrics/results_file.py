"""Evaluate an untrusted COCO results file against a ground truth file: COCO metrics without a model."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from pycocotools import mask as coco_mask

from detseg.annotations.formats.shared.lenient_json import Mender, encoded
from detseg.annotations.instance_box import SORTED, sorted_box
from detseg.annotations.repair_log import RepairLog
from detseg.class_names import Rename
from detseg.errors import DataError
from detseg.json_text import JsonError, decode_json
from detseg.masks import segmentation_box, segmentation_to_rle
from detseg.metrics.coco_metrics import CocoMetrics
from detseg.metrics.ground_truth import GroundTruth, box_polygon, to_json
from detseg.metrics.ground_truth_file import Box, Id, check_segmentation, read_ground_truth, read_json, rle_size
from detseg.metrics.matching import (
    DEFAULT_MAX_DETS,
    IouType,
    check_iou_types,
    gt_index,
    limit_notes,
    match,
    per_class,
    summarize,
)
from detseg.metrics.pycocotools_reference import run_pycocotools


def evaluate_files(
    ground_truth: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    *,
    iou_type: str | None = None,
    max_dets: int | None = None,
    sigmas: Sequence[float] = (),
    reference: bool = False,
    rename: Rename | None = None,
) -> CocoMetrics:
    """Evaluate a COCO results file; returns the same numbers as pycocotools for the same two files.

    They differ where pycocotools counts detected objects as missed (annotations with id 0 or with repeated ids), and
    where a box is missing or has a negative size, which pycocotools cannot evaluate.

    Args:
        ground_truth: COCO annotation file.
        predictions: JSON list of results with image_id, category_id, score and bbox (x, y, width, height),
            segmentation or keypoints; or an object with such a list under ``annotations``.
        iou_type: "bbox", "segm" or "keypoints"; None: chosen by the fields of the results (segmentation, then
            keypoints, then boxes).
        max_dets: maximum number of detections per class and image; None: COCO's limit (100; 20 for keypoints).
        sigmas: OKS sigmas, needed for keypoints other than COCO's 17.
        reference: compute with pycocotools, with the ids of the file and all its quirks. Slow.
        rename: other names of classes, as in ``detseg.annotations.read``; classes with the same new name are merged, in
            the results too.

    Raises:
        DataError: a file of the wrong format, an image that is not in the ground truth, or a segmentation that is
            unsafe for native code. The message contains the location.
        OSError: a file cannot be read.
    """
    path = Path(predictions)
    results, notes = _read_results(path)
    kind = check_iou_types([iou_type or _guess_iou_type(results)])[0]
    limit = DEFAULT_MAX_DETS[kind] if max_dets is None else max_dets
    gt = read_ground_truth(ground_truth, iou_type=kind, sigmas=sigmas)
    gt = _matching(gt, results, path, rename, reference=reference)
    notes = gt.notes.lines() + notes
    known = [(row, result) for row, result in enumerate(results) if result.category_id in gt.label_of_category]
    usable = [(row, result) for row, result in known if result.image_id not in gt.left_out]
    if len(usable) < len(known):
        notes.append(f"{len(known) - len(usable)} results skipped: their images are not evaluated")
    if len(known) < len(results):
        ids = sorted({result.category_id for result in results} - set(gt.label_of_category), key=_by_number)
        notes.append(
            f"{len(results) - len(known)} results skipped: the ground truth has no category {_first_five(ids)} "
            f"({len(ids)} such ids)"
        )
    notes += [*_box_notes(kind, results, usable), *limit_notes(gt, kind, limit)]
    index = gt_index(gt, kind)
    detections = [
        _detection(result, gt, kind, number, f"{path.name}, result {row}")
        for number, (row, result) in enumerate(usable, 1)
    ]
    if reference and results:  # pycocotools cannot read an empty list
        notes.append("computed by pycocotools with the ids of the file, including its quirks")
        try:
            evaluation = run_pycocotools(ground_truth, path, kind, limit, gt.sigmas)
        except (TypeError, KeyError, IndexError, ValueError, AssertionError) as error:  # numbers in quotes, text ids
            raise DataError(
                f"{path}: pycocotools cannot read these files as they are written ({error!r}); omit --reference"
            ) from None
    else:
        evaluation = match(gt, index, detections, kind, limit)
    return CocoMetrics(
        {kind: summarize(evaluation, kind)},
        {kind: per_class(gt, evaluation)},
        gt.counts(),
        len(gt.sizes),
        {kind: limit},
        tuple(notes),
    )


def _matching(
    gt: GroundTruth, results: list[_Result], path: Path, rename: Rename | None, *, reference: bool
) -> GroundTruth:
    """The ground truth with the new names; ids in ``results`` become those of its images and classes.

    Raises:
        DataError: an image that is not in the ground truth, or what pycocotools itself cannot do.
    """
    for result in results:
        result.image_id = gt.text_ids.image_number(result.image_id)
        result.category_id = gt.text_ids.category_number(result.category_id)
    _check_images(results, gt, path)
    if reference and gt.boxes_changed:
        raise DataError(
            f"{gt.source}: pycocotools cannot evaluate boxes that are missing or cannot be used; omit --reference "
            f"({'; '.join(gt.notes.lines())})"
        )
    if rename is None:
        return gt
    if reference:
        raise DataError("rename with reference: pycocotools reads the files; omit --rename or --reference")
    gt, category_of = gt.renamed(rename)
    for result in results:
        if isinstance(result.category_id, int):  # a text is no category of the ground truth
            result.category_id = category_of.get(result.category_id, result.category_id)
    return gt


def _box_notes(kind: IouType, results: list[_Result], usable: list[tuple[int, _Result]]) -> list[str]:
    """Lines about boxes that stand beside masks and keypoints, instead of masks, or with exchanged corners."""
    notes = []
    if kind == "segm" and any(result.bbox and result.segmentation is not None for result in results):
        notes.append("results have both boxes and masks: their size range is that of the box, as in pycocotools")
    if kind == "keypoints" and any(result.bbox for result in results):
        notes.append("results have both boxes and keypoints: their size range is that of the box, as in pycocotools")
    if kind == "segm" and any(result.bbox and result.segmentation is None for _, result in usable):
        notes.append("results without a segmentation are evaluated as filled boxes, as in pycocotools")
    negative = [row for row, result in usable if len(result.bbox or ()) == 4 and min((result.bbox or [])[2:]) < 0]
    if negative:
        notes.append(f"{len(negative)} x {SORTED}: results {_first_five(negative)}")
    return notes


def _read_results(path: Path) -> tuple[list[_Result], list[str]]:
    """The results with the ids as written, and notes about values that are written in another type."""
    expected = "a list of COCO results"
    notes = RepairLog()
    try:
        content: list[_Result] | _Results = decode_json(path.read_bytes(), list[_Result] | _Results)
    except JsonError:
        value = read_json(path, Any, expected)
        if not isinstance(value, list) and not (isinstance(value, dict) and "annotations" in value):
            read_json(path, list[_Result] | _Results, expected)  # raises
        listed = value if isinstance(value, list) else value["annotations"]
        names = [f"result {row}" for row in range(len(listed) if isinstance(listed, list) else 0)]
        mender = Mender(str(path), {"": names, "annotations": names})
        mended = encoded(mender.mend(value, list[_Result] | _Results), str(path))
        content, notes = msgspec.json.decode(mended, type=list[_Result] | _Results), mender.notes
    return (content.annotations if isinstance(content, _Results) else content), notes.lines()


def _by_number(number: int | str) -> tuple[bool, int | str]:
    return isinstance(number, str), number


class _Result(msgspec.Struct):
    """Ids may be texts, as in the ground truth."""

    image_id: Id | str
    category_id: Id | str
    score: float
    bbox: Box | None = None
    segmentation: Any = None
    keypoints: list[float] | None = None


class _Results(msgspec.Struct):
    annotations: list[_Result]


def _guess_iou_type(results: list[_Result]) -> IouType:
    if results and results[0].segmentation:
        return "segm"
    return "keypoints" if results and results[0].keypoints else "bbox"


def _check_images(results: list[_Result], gt: GroundTruth, path: Path) -> None:
    unknown = sorted({result.image_id for result in results} - set(gt.sizes) - gt.left_out, key=_by_number)
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} image ids are not in {gt.source}: {_first_five(unknown)}; results and "
            "ground truth are from different data sets (pycocotools: Results do not correspond to current coco set)"
        )


def _detection(result: _Result, gt: GroundTruth, iou_type: IouType, number: int, where: str) -> dict[str, Any]:
    """One result as a COCO annotation with the renumbered ids; box and area as in pycocotools' ``loadRes``."""
    where = f"{where} (image {result.image_id})"
    image_id, category_id = int(result.image_id), int(result.category_id)  # known ones, which are numbers
    size_hw = gt.sizes[image_id]
    detection: dict[str, Any] = {
        "id": number,
        "image_id": gt.number_of_image[image_id],
        "category_id": gt.number_of_label[gt.label_of_category[category_id]],
        "score": result.score,
    }
    segmentation = None
    if iou_type == "segm" or not (result.bbox or result.keypoints):
        raw_segmentation = result.segmentation
        if raw_segmentation is None and result.bbox:
            raw_segmentation = box_polygon(result.bbox)
        if size_hw is None:
            size_hw = rle_size(raw_segmentation)  # an RLE contains the size of its image
        segmentation = check_segmentation(raw_segmentation, size_hw, where)
        if segmentation is None:
            raise DataError(f"{where}: neither box nor segmentation; a result needs what is evaluated ({iou_type})")
        detection["segmentation"] = to_json(segmentation)
    if iou_type == "keypoints":
        if not result.keypoints or len(result.keypoints) != 3 * len(gt.sigmas):
            raise DataError(
                f"{where}: {len(result.keypoints or ())} keypoint numbers; the ground truth has {len(gt.sigmas)} "
                "keypoints with x, y and score each"
            )
        detection["keypoints"] = result.keypoints
    if result.bbox:
        box = list(sorted_box(result.bbox)) if min(result.bbox[2:]) < 0 else list(result.bbox)
        area = box[2] * box[3]
    elif segmentation is not None and size_hw is not None:
        rle = segmentation_to_rle(segmentation, size_hw)
        box, area = list(segmentation_box(rle)), float(coco_mask.area(rle))
    else:
        xs, ys = (result.keypoints or [])[0::3], (result.keypoints or [])[1::3]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        area = box[2] * box[3]
    if not math.isfinite(area):
        raise DataError(f"{where}: box {box} is too large; correct it")
    return {**detection, "bbox": box, "area": area}


def _first_five(ids: list[Any]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
