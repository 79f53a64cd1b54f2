"""Choose the evaluator for the task of a model, or for a dataset."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from detseg.annotations.from_dataset import table_from_dataset
from detseg.annotations.table import AnnotationTable
from detseg.datasets.contracts import has_ground_truth_table
from detseg.engine.tiled_evaluator import TiledEvaluator
from detseg.metrics import ClassificationEvaluator, CocoEvaluator, FieldEvaluator
from detseg.preprocess import Geometry, Preprocessing

AnyEvaluator = CocoEvaluator | ClassificationEvaluator | FieldEvaluator


def make_evaluator(
    table: AnnotationTable, task: str, preprocessing: Preprocessing, *, max_dets: int | None = None
) -> AnyEvaluator:
    """Create the evaluator of a task ("detect", "segment", "keypoints", "classify") for the images of ``table``.

    The ground truth is that of the table, in original pixels; ``preprocessing`` maps network outputs back to them.
    With tiles, the outputs are those of the views of the images, which are merged first.
    """
    if task == "classify":
        return FieldEvaluator(table.label_fields) if table.label_fields else ClassificationEvaluator(table.class_map)
    iou_types = {"segment": ("bbox", "segm"), "keypoints": ("bbox", "keypoints")}.get(task, ("bbox",))
    if preprocessing.tiling is not None:
        sizes = {record.image_id: (record.size_hw, record.orientation) for record in table}
        views = lru_cache(maxsize=16)(lambda image_id: preprocessing.views(*sizes[image_id]))
        return TiledEvaluator(table, views=views, iou_types=iou_types, max_dets=max_dets)
    geometries: dict[int, Geometry] = {
        record.image_id: preprocessing.geometry(record.size_hw, record.orientation) for record in table
    }
    return CocoEvaluator(table, iou_types=iou_types, geometry=geometries.__getitem__, max_dets=max_dets)


def evaluator_for_dataset(dataset: Any) -> AnyEvaluator:
    """Create the evaluator for a dataset.

    A dataset with ``ground_truth_table()``, as this project's, states its ground truth and its task (see
    :class:`~detseg.datasets.contracts.GroundTruthDataset`). For any other dataset (``dataset[i] -> (image, target)``,
    which must not augment) the ground truth is read sample by sample: box AP, and also mask AP if the targets have
    masks, else OKS AP if they have keypoints.
    """
    if has_ground_truth_table(dataset):
        return make_evaluator(dataset.ground_truth_table(), dataset.task, dataset.preprocessing)
    table = table_from_dataset(dataset)
    more_types = ["segm"] if table.has_masks else ["keypoints"] if table.keypoints is not None else []
    return CocoEvaluator(table, iou_types=("bbox", *more_types))
