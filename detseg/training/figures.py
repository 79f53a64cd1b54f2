"""Figures for notebooks and ``--figures``: history, precision and recall, confusion, samples, predictions, mistakes.

All return matplotlib figures. Predictions are those of a :class:`~detseg.inference.predictor.Predictor` (or of a run
folder, which is loaded), or a dict of predictions by image id, such as ``evaluator.predictions``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.datasets.contracts import has_ground_truth_table
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.inference.predictor import Predictor
from detseg.metrics import ClassificationEvaluator, CocoEvaluator, FieldEvaluator
from detseg.pixel_values import Range
from detseg.pr_curve import PrCurve
from detseg.reports import confusion, curves, pr_plot
from detseg.reports.comparison import AnyPrediction, matches_of
from detseg.reports.image_figures import compared_images, predictions_figure, samples_figure, worst_first
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted
from detseg.structures import ClassPrediction, FieldPredictions, Prediction
from detseg.training.metrics_log import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Predictions = Predictor | str | os.PathLike[str] | Mapping[int, AnyPrediction]

MIN_SCORE = 0.5
"""Detections below it are not drawn, and not counted in a confusion matrix."""


def plot_history(*runs: Any) -> Figure:
    """Plot losses, metrics and learning rate over the epochs.

    Args:
        runs: run folders, results of ``fit``, or lists of rows as in metrics.jsonl; several are compared.
    """
    histories: dict[str, Any] = {}
    for number, run in enumerate(runs, 1):
        folder = getattr(run, "folder", run)
        is_rows = not isinstance(folder, (str, os.PathLike))
        name = f"run {number}" if is_rows else Path(folder).name
        while name in histories:
            name += "'"
        histories[name] = folder if is_rows else read_rows(RunFolder.of(folder).metrics_log, 10**9)
    if not histories:
        raise DataError("plot_history: no run; pass a run folder, such as plot_history('runs/mine')")
    return curves.plot_history(histories)


def plot_pr(table: AnnotationTable, predictions: Predictions) -> Figure:
    """Plot precision and recall of each class: of a detector at IoU 0.5 and 0.75, of a classifier class by class."""
    return pr_plot.plot_pr(pr_curves(table, predictions))


def pr_curves(table: AnnotationTable, predictions: Predictions) -> list[PrCurve]:
    """Return the precision-recall curves of predictions for the images of ``table``."""
    evaluator = _evaluator(table, predictions)
    if isinstance(evaluator, CocoEvaluator):
        evaluator.compute()
    return evaluator.pr_curves


def plot_confusion(table: AnnotationTable, predictions: Predictions) -> Figure:
    """Plot which classes are confused; of a detector also missed objects and false alarms (score 0.5, IoU 0.5).

    With several label fields it is the matrix of the first one with a mistake.
    """
    chosen = _predicted(table, predictions)
    names = table.class_map.names
    if table.label_fields:
        fields = _evaluator(table, chosen).compute().fields
        wrong = [name for name, part in fields.items() if part.accuracy is not None and part.accuracy < 1]
        name = wrong[0] if wrong else next(iter(fields))
        return confusion.plot_confusion(fields[name].class_names, fields[name].confusion, name=name)
    if not any(isinstance(prediction, Prediction) for prediction in chosen.values()) and table.has_class_index:
        return confusion.plot_confusion(names, _evaluator(table, chosen).compute().confusion)
    matrix = np.zeros((len(names) + 1, len(names) + 1), np.int64)
    for record in table:
        prediction = chosen.get(record.image_id)
        if isinstance(prediction, Prediction):
            matrix += matches_of(record, prediction, len(names), MIN_SCORE).confusion
    return confusion.plot_confusion(names, matrix, has_background=True)


def show_samples(dataset: Any, count: int = 6) -> Figure:
    """Show samples of a dataset as the network gets them: augmented, with boxes, masks, keypoints and class names.

    Args:
        dataset: of this project, or any ``dataset[i] -> (image, target)`` with ``class_map`` as an attribute.
        count: number of samples, at even distances.
    """
    class_map, options = _description(dataset)
    samples = [dataset[i] for i in _spread(len(dataset), count)]
    return samples_figure(samples, class_map, **options, title=_samples_title(dataset))


def show_batch(batch: Any, class_map: ClassMap | None = None) -> Figure:
    """Show a batch as the network gets it: images filled up to the largest, with all annotations.

    Args:
        batch: a data loader, whose first batch is taken, or lists of images and targets.
        class_map: of the labels, for lists.
    """
    options: dict[str, Any] = {}
    dataset = getattr(batch, "dataset", None)
    if dataset is not None:
        found_map, options = _description(dataset)
        class_map, batch = class_map or found_map, next(iter(batch))
    if class_map is None:
        raise DataError("show_batch: lists of images and targets have no class names; pass class_map=table.class_map")
    images, targets = batch
    title = f"a batch of {counted(len(images), 'image')}"
    return samples_figure(zip(images, targets, strict=True), class_map, **options, is_batch=True, title=title)


def show_predictions(
    table: AnnotationTable, predictions: Predictions, count: int = 6, *, value_range: Range | None = None
) -> Figure:
    """Show ground truth and prediction of images at even distances; misses and false alarms are marked.

    Args:
        value_range: of images with more than 8 bits per channel; that of the predictor if there is one.
    """
    rows, predictions = _spread(len(table), count), _opened(predictions)
    value_range = value_range or _value_range(predictions)
    return predictions_figure(_compared(table, rows, _predicted(table.subset(rows), predictions), value_range))


def show_mistakes(
    table: AnnotationTable, predictions: Predictions, count: int = 6, *, value_range: Range | None = None
) -> Figure:
    """Show the images with the most misses and false alarms; of a classifier the wrong ones, the most certain first.

    Args:
        value_range: as in :func:`show_predictions`.
    """
    predictions = _opened(predictions)
    value_range = value_range or _value_range(predictions)
    predicted = _predicted(table, predictions)
    ranked = worst_first(table, predicted, table.class_map, MIN_SCORE)
    detector = any(isinstance(prediction, Prediction) for prediction in predicted.values())
    total = f"{counted(len(ranked), 'image')} of {len(predicted)}"
    title = f"misses and false alarms in {total}, the worst first" if detector else f"wrong classes in {total}"
    compared = _compared(table, [position for position, _ in ranked[:count]], predicted, value_range)
    return predictions_figure(compared, title if ranked else f"no mistake in {counted(len(predicted), 'image')}")


def _compared(
    table: AnnotationTable, rows: Sequence[int], predicted: Mapping[int, AnyPrediction], value_range: Range | None
) -> list[Any]:
    records = [record for record in (table[row] for row in rows) if record.image_id in predicted]
    schema = table.keypoint_schema
    return compared_images(
        (decode_image(record.path, value_range=value_range) for record in records),
        records,
        (predicted[record.image_id] for record in records),
        table.class_map,
        min_score=MIN_SCORE,
        skeleton=schema.skeleton if schema else (),
    )


def _opened(predictions: Predictions) -> Predictor | Mapping[int, AnyPrediction]:
    """Return the predictor of a run folder; anything else unchanged."""
    return predictions if isinstance(predictions, (Mapping, Predictor)) else Predictor(predictions)


def _value_range(predictions: Predictor | Mapping[int, AnyPrediction]) -> Range | None:
    return predictions.preprocessing.value_range if isinstance(predictions, Predictor) else None


def _predicted(table: AnnotationTable, predictions: Predictions) -> Mapping[int, AnyPrediction]:
    """Return image id -> prediction for the images of ``table``."""
    opened = _opened(predictions)
    return {record.image_id: opened(record.path) for record in table} if isinstance(opened, Predictor) else opened


def _evaluator(table: AnnotationTable, predictions: Predictions) -> Any:
    """Return an evaluator with the predictions for ``table``."""
    predicted = _predicted(table, predictions)
    evaluator: Any
    if table.label_fields:
        evaluator = FieldEvaluator(table.label_fields)
    elif table.has_class_index and not any(isinstance(prediction, Prediction) for prediction in predicted.values()):
        evaluator = ClassificationEvaluator(table.class_map)
    else:
        detections = [prediction for prediction in predicted.values() if isinstance(prediction, Prediction)]
        kinds = [
            "bbox",
            *(["segm"] if detections and all(item.rles is not None for item in detections) else []),
            *(["keypoints"] if detections and all(item.keypoints is not None for item in detections) else []),
        ]
        evaluator = CocoEvaluator(table, iou_types=kinds)
    for record in table:
        prediction = predicted.get(record.image_id)
        if isinstance(prediction, FieldPredictions):
            prediction = _with_all_fields(prediction, table)
        if prediction is not None:
            evaluator.update([{"image_id": record.image_id, "class_index": record.class_index}], [prediction])
    return evaluator


def _with_all_fields(prediction: FieldPredictions, table: AnnotationTable) -> FieldPredictions:
    """Return the predictions with any class for the fields without a label, which are not evaluated."""
    missing = {
        field.name: ClassPrediction(np.full(len(field), 1 / len(field), np.float32)) for field in table.label_fields
    }
    return FieldPredictions(missing | prediction.fields)


def _description(dataset: Any) -> tuple[ClassMap, dict[str, Any]]:
    """Return the class map of a dataset, and its label fields and skeleton."""
    if has_ground_truth_table(dataset):
        table = dataset.ground_truth_table()
        schema = table.keypoint_schema
        return table.class_map, {"label_fields": table.label_fields, "skeleton": schema.skeleton if schema else ()}
    class_map = getattr(dataset, "class_map", None)
    if not isinstance(class_map, ClassMap):
        raise DataError(f"{type(dataset).__name__} has no class names; give it an attribute class_map")
    return class_map, {}


def _samples_title(dataset: Any) -> str:
    augmented = getattr(dataset, "augment", None) is not None
    return f"images as the network gets them, {'with' if augmented else 'without'} augmentation"


def _spread(length: int, count: int) -> list[int]:
    """Return ``count`` of the numbers below ``length`` at even distances."""
    step = max(1, length // max(count, 1))
    return list(range(0, length, step))[:count]
