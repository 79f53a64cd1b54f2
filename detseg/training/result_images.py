"""Write the images of a run's results: ground truth and prediction side by side, confusion matrices."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.engine.evaluate import Metrics
from detseg.images import decode_image
from detseg.inference.predictor import Predictor
from detseg.metrics import ClassificationMetrics, FieldMetrics
from detseg.models import Model
from detseg.reports.confusion import plot_confusion
from detseg.reports.draw import draw, draw_class
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
) -> None:
    """Write predictions.jpg (ground truth left, prediction right) and, for classifiers, confusion.png to ``folder``.

    With several label fields it writes one ``confusion-<field>.png`` for each. The written files are reported.
    """
    reporter = reporter or silent()
    predictor = Predictor(model, device)
    skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
    images: list[Any] = []
    titles: list[str] = []
    step = max(1, len(table) // SHEET_IMAGES)
    for record in (table[row] for row in range(0, len(table), step)[:SHEET_IMAGES]):
        image = decode_image(record.path, value_range=predictor.preprocessing.value_range)
        prediction = predictor(image)
        if isinstance(prediction, Prediction):
            images += [
                draw(image, shown, table.class_map, skeleton=skeleton, reporter=reporter)
                for shown in (record, prediction)
            ]
            titles += [f"{record.name}: ground truth", "prediction"]
        else:
            images.append(draw_class(image, prediction, table.class_map, reporter=reporter))
            titles.append(f"{record.name}: {', '.join(record.class_names(table.class_map))}")
    if images:
        write_image(RunFolder(folder).result_images, sheet(images, titles, columns=4, reporter=reporter))
        reporter.image(RunFolder(folder).result_images)
    if isinstance(metrics, ClassificationMetrics):
        path = RunFolder(folder).confusion()
        if plot_confusion(list(table.class_map.names), metrics.confusion, path):
            reporter.image(path)
    if isinstance(metrics, FieldMetrics):
        for name, part in _confusion_names(list(metrics.fields)).items():
            path = RunFolder(folder).confusion(part)
            if plot_confusion(metrics.fields[name].class_names, metrics.fields[name].confusion, path):
                reporter.image(path)


def _confusion_names(names: list[str]) -> dict[str, str]:
    """Return the part of a file name for each label field; characters that are not allowed in one become ``_``."""
    parts: dict[str, str] = {}
    for name in names:
        part = re.sub(r"[^\w-]", "_", name)[:80]
        while part in parts.values():
            part += "_"
        parts[name] = part
    return parts
