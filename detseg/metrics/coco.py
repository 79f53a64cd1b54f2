"""Compute COCO AP of boxes, masks and keypoints from predictions that are added batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from detseg.annotations.table import AnnotationTable
from detseg.boxes import xyxy_to_xywh
from detseg.errors import DataError
from detseg.metrics.coco_metrics import CocoMetrics, Stats
from detseg.metrics.ground_truth import GroundTruth, to_json
from detseg.metrics.matching import (
    DEFAULT_MAX_DETS,
    IouType,
    check_iou_types,
    gt_index,
    limit_notes,
    match,
    per_class,
    pr_curves,
    summarize,
)
from detseg.metrics.outputs import Output, as_prediction, to_numpy
from detseg.metrics.serialization import pack_predictions, unpack_predictions
from detseg.postprocess import to_stored_frame
from detseg.pr_curve import PrCurve
from detseg.preprocess import Geometry
from detseg.structures import Prediction


class CocoEvaluator:
    """Evaluates predictions against all images of a ground truth, as COCO does.

    An image without an ``update`` counts as an image without detections; compare ``images_seen`` with the number of
    images that the model processed. A repeated image (samplers of distributed runs repeat some to fill the last batch)
    is not evaluated again: its first prediction is used.

    Args:
        ground_truth: a table, whose ignored instances count as crowds, or a GroundTruth.
        iou_types: one or more of "bbox", "segm", "keypoints".
        geometry: image id -> Geometry; needed for outputs in network pixels.
        max_dets: maximum number of detections per class and image, by descending score. None: COCO's limit (100; 20
            for keypoints), or the largest number of objects of one class in one image if that is larger.

    Attributes:
        images_seen: number of different images that were added.
        repeats: number of predictions that were ignored because their image was already added.
        pr_curves: precision and recall of each class at IoU 0.5 and 0.75, of the last ``compute``.
    """

    def __init__(
        self,
        ground_truth: AnnotationTable | GroundTruth,
        *,
        iou_types: Sequence[str] = ("bbox",),
        geometry: Callable[[int], Geometry] | None = None,
        max_dets: int | None = None,
    ) -> None:
        self.ground_truth = (
            ground_truth if isinstance(ground_truth, GroundTruth) else GroundTruth.from_table(ground_truth)
        )
        self.iou_types = check_iou_types(iou_types)
        self._geometry = geometry
        self._max_dets = max_dets
        self._index: dict[str, Any] = {}
        self.reset()

    def reset(self) -> None:
        """Remove all predictions."""
        self._predictions: dict[int, Prediction] = {}
        self.pr_curves: list[PrCurve] = []
        self.repeats = 0

    @property
    def predictions(self) -> Mapping[int, Prediction]:
        """Image id -> prediction in original pixels."""
        return self._predictions

    @property
    def images_seen(self) -> int:
        return len(self._predictions)

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[Output]) -> None:
        """Add a batch.

        Args:
            targets: one dict per image; only ``image_id`` (int, or a tensor of one number) is used.
            outputs: output of the model for each image: RawPrediction, Prediction, or torchvision's dict of tensors.

        Raises:
            DataError: an image that is not in the ground truth, or an output that cannot be evaluated: numbers that
                are not finite, a label outside 1..K, or no masks or keypoints although ``iou_types`` needs them.
        """
        if len(targets) != len(outputs):
            raise DataError(f"{len(targets)} targets but {len(outputs)} outputs; pass one output per image")
        ids = [int(to_numpy(target["image_id"]).reshape(-1)[0]) for target in targets]
        unknown = sorted({image_id for image_id in ids if image_id not in self.ground_truth.sizes})
        if unknown:
            raise DataError(
                f"image ids {', '.join(map(str, unknown[:5]))}{', ...' if len(unknown) > 5 else ''} are not in the "
                f"ground truth {self.ground_truth.source}, which has {len(self.ground_truth.sizes)} images; evaluate "
                "on the images of this ground truth (pycocotools: Results do not correspond to current coco set)"
            )
        for image_id, output in zip(ids, outputs, strict=True):
            if image_id in self._predictions:
                self.repeats += 1
            else:
                self._predictions[image_id] = self._checked(image_id, output)

    def to_bytes(self) -> bytes:
        """All predictions, for the evaluator of another process; see :meth:`add_bytes`."""
        return pack_predictions(self._predictions.items())

    def add_bytes(self, content: bytes) -> None:
        """Add the predictions that another process collected with an evaluator of the same ground truth."""
        for image_id, prediction in unpack_predictions(content):
            if image_id in self._predictions:
                self.repeats += 1
            else:
                self._predictions[image_id] = prediction
        # in the order of the ground truth, as if a single process had evaluated all images
        self._predictions = {
            image_id: self._predictions[image_id]
            for image_id in self.ground_truth.sizes
            if image_id in self._predictions
        }

    def compute(self) -> CocoMetrics:
        """Evaluate all predictions so far against all images of the ground truth; nothing is printed or changed."""
        stats: dict[str, Stats] = {}
        classes: dict[str, dict[str, Stats]] = {}
        limits: dict[str, int] = {}
        self.pr_curves = []
        for iou_type in self.iou_types:
            evaluation = self._evaluation(iou_type)
            self.pr_curves += pr_curves(self.ground_truth, evaluation, iou_type)
            stats[iou_type] = summarize(evaluation, iou_type)
            classes[iou_type] = per_class(self.ground_truth, evaluation)
            limits[iou_type] = self._limit(iou_type)
        notes = self.ground_truth.notes.lines()
        for iou_type in self.iou_types:
            notes += limit_notes(self.ground_truth, iou_type, limits[iou_type])
        if self.repeats:
            notes.append(f"{self.repeats} predictions ignored: repeated images")
        images = len(self.ground_truth.sizes)
        if len(self._predictions) < images:
            notes.append(f"{images - len(self._predictions)} of {images} images have no predictions")
        return CocoMetrics(stats, classes, self.ground_truth.counts(), images, limits, tuple(notes))

    def results(self) -> list[dict[str, Any]]:
        """All predictions in COCO's results format, with the ids and in the pixel frame of the data set.

        Each has ``image_id``, ``category_id``, ``bbox`` (x, y, width, height, not rounded), ``score``, and if the model
        predicts them ``segmentation`` (RLE with counts as text) and ``keypoints`` (x, y, score, ...).
        """
        results = []
        text_ids = self.ground_truth.text_ids
        for image_id, prediction in self._predictions.items():
            if image_id in self.ground_truth.stored:
                prediction = to_stored_frame(prediction, *self.ground_truth.stored[image_id])
            boxes = _boxes_xywh(prediction)
            for i in range(len(prediction)):
                result = {
                    "image_id": text_ids.image(image_id),
                    "category_id": text_ids.category(self.ground_truth.category_ids[int(prediction.labels[i]) - 1]),
                    "bbox": boxes[i],
                    "score": float(prediction.scores[i]),
                }
                if prediction.rles is not None:
                    result["segmentation"] = to_json(prediction.rles[i])
                if prediction.keypoints is not None:
                    result["keypoints"] = prediction.keypoints[i].astype(np.float64).ravel().tolist()
                results.append(result)
        return results

    def _checked(self, image_id: int, output: Output) -> Prediction:
        geometry_of = self._geometry
        prediction = as_prediction(
            output,
            self.ground_truth.sizes[image_id],
            geometry=None if geometry_of is None else lambda: geometry_of(image_id),
            num_labels=len(self.ground_truth.class_names),
            where=f"image {image_id}",
            masks="segm" in self.iou_types,
        )
        for iou_type, name, values in (
            ("segm", "masks", prediction.rles),
            ("keypoints", "keypoints", prediction.keypoints),
        ):
            if iou_type in self.iou_types and values is None:
                raise DataError(
                    f"image {image_id}: the output has no {name}; evaluate a model that predicts them, or bbox"
                )
        return prediction

    def _limit(self, iou_type: IouType) -> int:
        if self._max_dets is not None:
            return self._max_dets
        return max(DEFAULT_MAX_DETS[iou_type], self.ground_truth.most_of_a_class)

    def _evaluation(self, iou_type: IouType) -> Any:
        """hotcoco's ``COCOeval`` after accumulation: its ``eval`` arrays, and the matches of every image."""
        if iou_type not in self._index:
            self._index[iou_type] = gt_index(self.ground_truth, iou_type)
        return match(
            self.ground_truth, self._index[iou_type], self._detections(iou_type), iou_type, self._limit(iou_type)
        )

    def _detections(self, iou_type: IouType) -> list[dict[str, Any]]:
        """All predictions as COCO annotations with the renumbered ids of the ground truth.

        The area of a detection is that of its box, mask or extent of keypoints, as in torchvision's reference.
        """
        detections: list[dict[str, Any]] = []
        for image_id in sorted(self._predictions):
            prediction = self._predictions[image_id]
            boxes = _boxes_xywh(prediction)
            areas = [width * height for _, _, width, height in boxes]
            if iou_type == "segm" and prediction.rles:
                # one by one: pycocotools 2.0.11 overflows for a list of more than 255
                areas = [float(coco_mask.area(rle)) for rle in prediction.rles]
            if iou_type == "keypoints" and prediction.keypoints is not None and len(prediction):
                extents = np.ptp(prediction.keypoints[..., :2].astype(np.float64), axis=1)
                areas = extents.prod(axis=1).tolist()
            for i, (box, area) in enumerate(zip(boxes, areas, strict=True)):
                detection = {
                    "id": len(detections) + 1,
                    "image_id": self.ground_truth.number_of_image[image_id],
                    "category_id": self.ground_truth.number_of_label[int(prediction.labels[i])],
                    "bbox": box,
                    "area": area,
                    "score": float(prediction.scores[i]),
                }
                if iou_type == "segm" and prediction.rles is not None:
                    detection["segmentation"] = to_json(prediction.rles[i])
                if iou_type == "keypoints" and prediction.keypoints is not None:
                    detection["keypoints"] = prediction.keypoints[i].astype(np.float64).ravel().tolist()
                detections.append(detection)
        return detections


def _boxes_xywh(prediction: Prediction) -> list[list[float]]:
    """M boxes as x, y, width, height; the difference is computed in float64, so that widths are exact."""
    boxes: list[list[float]] = xyxy_to_xywh(prediction.boxes.astype(np.float64)).tolist()
    return boxes
