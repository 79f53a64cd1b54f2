"""Pictures of what a run learned: truth and prediction side by side, confusion of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.engine.evaluate import Metrics
from detseg.images import decode_image
from detseg.metrics import ClassificationMetrics
from detseg.models import Classifier, Detector
from detseg.predictor import Predictor
from detseg.reports.confusion import plot_confusion
from detseg.reports.draw import draw, draw_class
from detseg.reports.sheet import sheet, write_image
from detseg.structures import Prediction

SHOWN = 8
"""Validation images on the sheet."""


def write_pictures(
    folder: Path, model: Detector | Classifier, table: AnnotationTable, device: torch.device, metrics: Metrics
) -> None:
    """predictions.jpg (truth left, prediction right) and, for classifiers, confusion.png, in ``folder``."""
    predictor = Predictor(model, device)
    pictures: list[Any] = []
    titles: list[str] = []
    step = max(1, len(table) // SHOWN)
    for record in (table[row] for row in range(0, len(table), step)[:SHOWN]):
        image = decode_image(record.path)
        found = predictor(image)
        if isinstance(found, Prediction):
            pictures += [draw(image, record, table.class_map), draw(image, found, table.class_map)]
            titles += [f"{record.name}: truth", "prediction"]
        else:
            pictures.append(draw_class(image, found, table.class_map))
            titles.append(f"{record.name}: {table.class_map.names[int(record.class_index[0])]}")
    if pictures:
        write_image(folder / "predictions.jpg", sheet(pictures, titles, columns=4))
    if isinstance(metrics, ClassificationMetrics):
        plot_confusion(list(table.class_map.names), metrics.confusion, folder / "confusion.png")
