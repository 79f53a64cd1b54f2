"""Compare the speed of evaluation: pasting and encoding masks, and COCO metrics of many masks."""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.benchmarks.speed.scenes_set import NAMES, raw_prediction, scene_annotations
from detseg.boxes import xywh_to_xyxy
from detseg.errors import DataError
from detseg.masks import segmentation_to_rle
from detseg.metrics import CocoEvaluator, read_ground_truth
from detseg.postprocess import finish
from detseg.preprocess import Geometry
from detseg.structures import RLE, Prediction, RawPrediction

MIN_IOU = 0.9
"""Minimum IoU with the masks of the baseline, which truncates box corners to whole pixels and so shifts small masks."""
ORDER = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip
"""Names in detseg of the 12 numbers of pycocotools' ``summarize``."""


def compare(device: torch.device) -> list[Comparison]:
    """Run both comparisons on the CPU, independent of ``device``."""
    with one_core():
        return [pasting_speed(), evaluation_speed()]


def pasting_speed(
    *, detections: int = 100, size_hw: tuple[int, int] = (800, 1066), images: int = 4, turns: int = 5
) -> Comparison:
    """Compare conversion of soft masks inside boxes to COCO RLEs of whole images.

    Raises:
        DataError: the two implementations do not agree.
    """
    rng = np.random.default_rng(0)
    raws = [raw_prediction(rng, detections, size_hw) for _ in range(images)]
    geometry = Geometry(size_hw, size_hw)
    transform = GeneralizedRCNNTransform(min(size_hw), max(size_hw), [0.0] * 3, [1.0] * 3).eval()
    ours, theirs = (
        [finish(raw, geometry).rles or [] for raw in raws],
        [_pasted(transform, raw, size_hw) for raw in raws],
    )
    agreement = check_masks(list(chain(*ours)), list(chain(*theirs)))
    comparison = time_interleaved(
        f"paste and encode {detections} masks, {size_hw[0]} x {size_hw[1]}",
        lambda: [finish(raw, geometry) for raw in raws],
        lambda: [_pasted(transform, raw, size_hw) for raw in raws],
        baseline="torchvision's postprocess, threshold, pycocotools' encode of whole masks",
        target=20,
        turns=turns,
    )
    return replace(
        comparison, note=f"{_per_second(comparison, images)}; IoU of all masks with the baseline's {agreement:.3f}"
    )


def evaluation_speed(
    *, images: int = 100, objects: int = 30, size_hw: tuple[int, int] = (480, 640), turns: int = 5
) -> Comparison:
    """Compare mask AP from predictions and ground truth in memory, in seconds summed over cores: several may be used.

    Raises:
        DataError: the two implementations do not return the same 12 numbers.
    """
    ground_truth = scene_annotations(images, size_hw, objects)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        path.write_bytes(msgspec.json.encode(ground_truth))
        ground_truth_table = read_ground_truth(path)
    predictions = _predictions(ground_truth, size_hw)
    targets = [{"image_id": image["id"]} for image in ground_truth["images"]]

    def ours() -> list[float | None]:
        evaluator = CocoEvaluator(ground_truth_table, iou_types=("segm",))
        evaluator.update(targets, predictions)
        stats = evaluator.compute().stats["segm"]
        return [stats[name] for name in ORDER]

    results = _results(ground_truth, predictions)
    check_scores(ours(), _pycocotools_stats(*copy.deepcopy((ground_truth, results))))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        copies = copy.deepcopy((ground_truth, results))  # pycocotools modifies them
        seconds[0].append(_core_seconds(ours))
        seconds[1].append(_core_seconds(partial(_pycocotools_stats, *copies)))
    comparison = Comparison(
        f"mask AP, {images} images of {objects} objects",
        "pycocotools' COCOeval",
        tuple(seconds[0]),
        tuple(seconds[1]),
        unit="core s",
    )
    return replace(comparison, note=f"{_per_second(comparison, images)}; the same 12 numbers")


def check_masks(ours: Sequence[RLE], theirs: Sequence[RLE]) -> float:
    """Return the IoU of all pairs together; DataError below :data:`MIN_IOU` or if the numbers of masks differ."""
    if len(ours) != len(theirs):
        raise DataError(
            f"{len(ours)} masks in detseg, {len(theirs)} in the baseline; the comparison is not of equal work"
        )
    pairs = [[mask, other] for mask, other in zip(ours, theirs, strict=True)]
    both, either = (
        sum(float(coco_mask.area(coco_mask.merge(pair, intersect=intersect))) for pair in pairs)
        for intersect in (True, False)
    )
    if both < MIN_IOU * either:
        raise DataError(
            f"masks share {both / either:.3f} of their pixels with the baseline's; at least {MIN_IOU} is required"
        )
    return both / either if either else 1.0


def check_scores(ours: Sequence[float | None], theirs: Sequence[float]) -> None:
    """Raise DataError unless both are the same numbers; None in detseg is -1 in pycocotools."""
    pairs = [(-1.0 if score is None else score, float(other)) for score, other in zip(ours, theirs, strict=True)]
    if any(abs(score - other) > 1e-12 for score, other in pairs):
        raise DataError(f"the scores differ (detseg, pycocotools): {pairs}")


def _pasted(transform: GeneralizedRCNNTransform, raw: RawPrediction, size_hw: tuple[int, int]) -> list[RLE]:
    """Postprocess with torchvision, then encode RLEs as in its reference script."""
    boxes, probs = torch.from_numpy(raw.boxes), torch.from_numpy(raw.mask_probs)
    detections = transform.postprocess([{"boxes": boxes, "masks": probs[:, None]}], [size_hw], [size_hw])
    masks = (detections[0]["masks"] > 0.5).numpy()[:, 0]
    return [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def _predictions(ground_truth: dict[str, Any], size_hw: tuple[int, int]) -> list[Prediction]:
    """Return a prediction for every object, shifted by a few pixels, some with a wrong class."""
    rng = np.random.default_rng(1)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    predictions = []
    for objects in by_image.values():
        moves = rng.normal(0, 2, (len(objects), 2))
        rings = [
            np.array(annotation["segmentation"][0]).reshape(-1, 2) + move
            for annotation, move in zip(objects, moves, strict=True)
        ]
        xywh = np.array([annotation["bbox"] for annotation in objects]).reshape(-1, 4)
        xywh[:, :2] += moves
        labels = np.array([annotation["category_id"] for annotation in objects], np.int64)
        wrong = rng.random(len(labels)) < 0.2
        labels[wrong] = rng.integers(1, 1 + len(NAMES), wrong.sum())
        predictions.append(
            Prediction(
                size_hw,
                xywh_to_xyxy(xywh).astype(np.float32),
                labels,
                np.sort(rng.random(len(labels), np.float32))[::-1],
                [segmentation_to_rle([ring], size_hw) for ring in rings],
            )
        )
    return predictions


def _results(ground_truth: dict[str, Any], predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return the predictions in COCO results format, for pycocotools."""
    return [
        {
            "image_id": image["id"],
            "category_id": int(prediction.labels[i]),
            "score": float(prediction.scores[i]),
            "segmentation": rle,
        }
        for image, prediction in zip(ground_truth["images"], predictions, strict=True)
        for i, rle in enumerate(prediction.rles or [])
    ]


def _pycocotools_stats(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = ground_truth
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(number) for number in evaluation.stats]


def _core_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _per_second(comparison: Comparison, images: int) -> str:
    ours, theirs = (images / statistics.median(seconds) for seconds in (comparison.ours, comparison.theirs))
    return f"{ours:.3g} images per second and core, the baseline {theirs:.3g}"
