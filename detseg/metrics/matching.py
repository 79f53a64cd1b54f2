"""Match detections and compute AP with hotcoco, whose results are bit-identical to those of pycocotools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import hotcoco
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.metrics.ground_truth import GroundTruth
from detseg.pr_curve import PrCurve

IouType = Literal["bbox", "segm", "keypoints"]
IOU_TYPES: tuple[IouType, ...] = ("bbox", "segm", "keypoints")
DEFAULT_MAX_DETS = {"bbox": 100, "segm": 100, "keypoints": 20}
"""COCO's limits: maximum number of detections per class and image, by descending score."""


def check_iou_types(iou_types: Sequence[str]) -> tuple[IouType, ...]:
    """The same names in a fixed order, after a check.

    Raises:
        DataError: no name, an unknown name, or a name that appears twice.
    """
    unknown = [name for name in iou_types if name not in IOU_TYPES]
    if unknown or not iou_types or len(set(iou_types)) != len(iou_types):
        raise DataError(
            f"IoU types {', '.join(iou_types) or 'none'}; choose one or more of {', '.join(IOU_TYPES)}, each once"
        )
    return tuple(name for name in IOU_TYPES if name in iou_types)


def gt_index(ground_truth: GroundTruth, iou_type: IouType) -> Any:
    """hotcoco's index of the ground truth; build it once and evaluate many times."""
    return hotcoco.COCO(ground_truth.dataset(iou_type))


def match(
    ground_truth: GroundTruth, index: Any, detections: list[dict[str, Any]], iou_type: IouType, max_dets: int
) -> Any:
    """Match detections with the ground truth and accumulate precision and recall.

    Args:
        ground_truth: the ground truth.
        index: its :func:`gt_index`.
        detections: COCO annotations with ``bbox``, ``area``, ``score`` and the fields that ``iou_type`` needs, image
            and category ids as renumbered by ``ground_truth``, ids 1..M. Their order breaks ties of equal scores.
        iou_type: definition of the overlap.
        max_dets: maximum number of detections per class and image.

    Returns:
        ``hotcoco.COCOeval`` after ``accumulate``: ``eval["precision"]`` float64 [T, R, K, A, M] and so on, -1 where
        there is no ground truth; ``eval_imgs`` holds the matches of every image.
    """
    predictions = hotcoco.COCO(
        {"images": ground_truth.images(), "annotations": detections, "categories": ground_truth.categories()}
    )
    evaluation = hotcoco.COCOeval(index, predictions, iou_type)
    evaluation.params.max_dets = list(limits(iou_type, max_dets))
    if iou_type == "keypoints":
        evaluation.params.kpt_oks_sigmas = list(ground_truth.sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def limits(iou_type: str, max_dets: int) -> tuple[int, ...]:
    """COCO's ``maxDets``: 1, 10 and ``max_dets`` for boxes and masks, only ``max_dets`` for keypoints."""
    if max_dets < 1:
        raise DataError(f"max_dets is {max_dets}, but must be at least 1")
    return (max_dets,) if iou_type == "keypoints" else (1, min(10, max_dets), max_dets)


def limit_notes(ground_truth: GroundTruth, iou_type: IouType, max_dets: int) -> list[str]:
    """Notes on the limit: that it differs from COCO's, or that some images have more objects than the limit."""
    notes = []
    if max_dets != DEFAULT_MAX_DETS[iou_type]:
        notes.append(
            f"up to {max_dets} detections per class and image are evaluated for {iou_type}, instead of COCO's limit of "
            f"{DEFAULT_MAX_DETS[iou_type]}"
        )
    crowded = {image_id for (image_id, _), count in ground_truth.per_class_and_image().items() if count > max_dets}
    if crowded:
        notes.append(
            f"{len(crowded)} images have more than {max_dets} objects of one class (up to "
            f"{ground_truth.most_of_a_class}), so AP of {iou_type} cannot reach 1; pass --max-dets "
            f"{ground_truth.most_of_a_class}"
        )
    return notes


def summarize(evaluation: Any, iou_type: IouType) -> dict[str, float | None]:
    """COCO's 12 metrics (10 for keypoints) by name, None where there is no ground truth.

    The means are computed over the defined entries, as in pycocotools' ``summarize``.
    """
    precision, recall = _arrays(evaluation)
    sizes = ("medium", "large") if iou_type == "keypoints" else ("small", "medium", "large")
    stats = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[:1, :, :, 0, -1]),
        "AP75": _mean(precision[5:6, :, :, 0, -1]),
        **{f"AP_{size}": _mean(precision[:, :, :, i, -1]) for i, size in enumerate(sizes, 1)},
    }
    if iou_type == "keypoints":
        stats |= {
            "AR": _mean(recall[:, :, 0, -1]),
            "AR50": _mean(recall[:1, :, 0, -1]),
            "AR75": _mean(recall[5:6, :, 0, -1]),
        }
    else:
        tops = evaluation.params.max_dets
        stats |= {f"AR{top}": _mean(recall[:, :, 0, i]) for i, top in enumerate(tops)}
    return stats | {f"AR_{size}": _mean(recall[:, :, i, -1]) for i, size in enumerate(sizes, 1)}


def per_class(ground_truth: GroundTruth, evaluation: Any) -> dict[str, dict[str, float | None]]:
    """AP and AP50 of each class by name, in the order of labels; None for a class without ground truth."""
    precision, _ = _arrays(evaluation)
    return {
        name: {
            "AP": _mean(precision[:, :, ground_truth.number_of_label[label] - 1, 0, -1]),
            "AP50": _mean(precision[:1, :, ground_truth.number_of_label[label] - 1, 0, -1]),
        }
        for label, name in enumerate(ground_truth.class_names, 1)
    }


def pr_curves(ground_truth: GroundTruth, evaluation: Any, iou_type: IouType) -> list[PrCurve]:
    """Precision-recall curves at IoU 0.5 and 0.75 of each class that has objects, in the order of labels."""
    precision, scores, objects = evaluation.eval["precision"], evaluation.eval["scores"], ground_truth.counts()
    curves = []
    for threshold, iou in ((0, 0.5), (5, 0.75)):
        for label, name in enumerate(ground_truth.class_names, 1):
            number = ground_truth.number_of_label[label] - 1
            values = precision[threshold, :, number, 0, -1].copy()
            if (values > -1).all():
                least = scores[threshold, :, number, 0, -1].copy()
                curves.append(PrCurve(iou_type, iou, name, values, least, objects[name]))
    return curves


def _arrays(evaluation: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    arrays = evaluation.eval
    return arrays["precision"], arrays["recall"]


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
