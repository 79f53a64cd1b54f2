"""Choose the evaluator for the task of a model, or for a dataset."""

from __future__ import annotations

from typing import Any

from detseg.annotations.from_dataset import table_from_dataset
from detseg.annotations.table import AnnotationTable
from detseg.datasets.dataset import Dataset
from detseg.datasets.labelled_images import LabelledImages
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.metrics import ClassificationEvaluator, CocoEvaluator, FieldEvaluator
from detseg.preprocess import Geometry, Preprocessing

AnyEvaluator = CocoEvaluator | ClassificationEvaluator | FieldEvaluator


def make_evaluator(
    table: AnnotationTable, task: str, preprocessing: Preprocessing, *, max_dets: int | None = None
) -> AnyEvaluator:
    """Create the evaluator of a task ("detect", "segment", "keypoints", "classify") for the images of ``table``.

    The ground truth is that of the table, in original pixels; ``preprocessing`` maps network outputs back to them.
    """
    if task == "classify":
        return FieldEvaluator(table.label_fields) if table.label_fields else ClassificationEvaluator(table.class_map)
    geometries: dict[int, Geometry] = {
        record.image_id: preprocessing.geometry(record.size_hw, record.orientation) for record in table
    }
    iou_types = {"segment": ("bbox", "segm"), "keypoints": ("bbox", "keypoints")}.get(task, ("bbox",))
    return CocoEvaluator(table, iou_types=iou_types, geometry=geometries.__getitem__, max_dets=max_dets)


def evaluator_for_dataset(dataset: Any) -> AnyEvaluator:
    """Create the evaluator for a dataset.

    This project's datasets have a table and a task, or classes. For any other dataset (``dataset[i] -> (image,
    target)``, which must not augment) the ground truth is read sample by sample: box AP, and also mask AP if the
    targets have masks, else OKS AP if they have keypoints.
    """
    if isinstance(dataset, Dataset):
        return make_evaluator(dataset.table, dataset.task, dataset.preprocessing)
    if isinstance(dataset, LabelledImages):
        return ClassificationEvaluator(dataset.class_map)
    if isinstance(dataset, RenderedScenes):  # rendered at the input size of the network
        table = table_from_dataset(dataset, dataset.class_map)
        return make_evaluator(table, dataset.task, Preprocessing(min_size=min(dataset.size_hw), max_size=0))
    table = table_from_dataset(dataset)
    more_types = ["segm"] if table.has_masks else ["keypoints"] if table.keypoints is not None else []
    return CocoEvaluator(table, iou_types=("bbox", *more_types))
