"""Write the images of a run's results: ground truth and prediction side by side, confusion matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.engine.evaluate import Metrics
from detseg.images import decode_image
from detseg.inference.predictor import Predictor
from detseg.metrics import ClassificationMetrics, FieldMetrics
from detseg.models import Model
from detseg.reports.comparison import AnyPrediction, compare, wrong_classes
from detseg.reports.confusion import write_confusion
from detseg.reports.draw import draw_class
from detseg.reports.image_figures import worst_first
from detseg.reports.sheet import sheet, write_image
from detseg.runtime.reporter import Reporter, silent
from detseg.runtime.run_folder import RunFolder
from detseg.structures import Prediction

SHEET_IMAGES = 8
"""Number of validation images on the sheet."""


def write_result_images(
    folder: Path,
    model: Model,
    table: AnnotationTable,
    device: torch.device,
    metrics: Metrics,
    reporter: Reporter | None = None,
    predictions: Mapping[int, AnyPrediction] | None = None,
) -> None:
    """Write predictions.jpg (ground truth left, prediction right) and, for classifiers, confusion.png to ``folder``.

    The images are at even distances; of a classifier first the wrong ones of ``predictions`` (image id -> prediction of
    these weights), the most certain first.

    With several label fields it writes one ``confusion-<field>.png`` for each. The written files are reported.
    """
    reporter = reporter or silent()
    predictor = Predictor(model, device)
    skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
    images: list[Any] = []
    titles: list[str] = []
    for record in (table[row] for row in _shown_rows(table, predictions or {})):
        image = decode_image(record.path, value_range=predictor.preprocessing.value_range)
        prediction = predictor(image)
        if isinstance(prediction, Prediction):
            compared = compare(image, record, prediction, table.class_map, skeleton=skeleton, reporter=reporter)
            images += compared.images
            titles += [f"{record.name}: {compared.captions[0]}", compared.captions[1]]
        else:
            wrong = wrong_classes(record, prediction, table.class_map)
            classes = ", ".join(record.class_names(table.class_map))
            images.append(draw_class(image, prediction, table.class_map, reporter=reporter))
            titles.append(f"{'wrong, is ' if wrong else ''}{classes}: {record.name}")
    if images:
        write_image(RunFolder(folder).result_images, sheet(images, titles, columns=4, reporter=reporter))
        reporter.image(RunFolder(folder).result_images)
    if isinstance(metrics, ClassificationMetrics):
        path = RunFolder(folder).confusion()
        if write_confusion(list(table.class_map.names), metrics.confusion, path):
            reporter.image(path)
    if isinstance(metrics, FieldMetrics):
        for name, part in _confusion_names(list(metrics.fields)).items():
            path = RunFolder(folder).confusion(part)
            if write_confusion(metrics.fields[name].class_names, metrics.fields[name].confusion, path):
                reporter.image(path)


def _shown_rows(table: AnnotationTable, predictions: Mapping[int, AnyPrediction]) -> list[int]:
    """Return the rows of the images to draw."""
    step = max(1, len(table) // SHEET_IMAGES)
    spread = list(range(0, len(table), step))[:SHEET_IMAGES]
    if not table.has_class_index or any(isinstance(prediction, Prediction) for prediction in predictions.values()):
        return spread
    mistakes = [row for row, _ in worst_first(table, predictions, table.class_map)]
    return [*mistakes, *(row for row in spread if row not in mistakes)][:SHEET_IMAGES]


def _confusion_names(names: list[str]) -> dict[str, str]:
    """Return the part of a file name for each label field; characters that are not allowed in one become ``_``."""
    parts: dict[str, str] = {}
    for name in names:
        part = re.sub(r"[^\w-]", "_", name)[:80]
        while part in parts.values():
            part += "_"
        parts[name] = part
    return parts
