"""Images of what a run learned: ground truth and prediction side by side, confusion of classes."""

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
from detseg.structures import Prediction

SHOWN = 8
"""Validation images on the sheet."""


def write_result_images(
    folder: Path, model: Model, table: AnnotationTable, device: torch.device, metrics: Metrics
) -> None:
    """predictions.jpg (ground truth left, prediction right) and, for classifiers, confusion.png, in ``folder``.

    With several label fields there is one ``confusion-<field>.png`` for each.
    """
    predictor = Predictor(model, device)
    skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
    images: list[Any] = []
    titles: list[str] = []
    step = max(1, len(table) // SHOWN)
    for record in (table[row] for row in range(0, len(table), step)[:SHOWN]):
        image = decode_image(record.path)
        found = predictor(image)
        if isinstance(found, Prediction):
            images += [draw(image, shown, table.class_map, skeleton=skeleton) for shown in (record, found)]
            titles += [f"{record.name}: ground truth", "prediction"]
        else:
            images.append(draw_class(image, found, table.class_map))
            titles.append(f"{record.name}: {', '.join(record.class_names(table.class_map))}")
    if images:
        write_image(folder / "predictions.jpg", sheet(images, titles, columns=4))
    if isinstance(metrics, ClassificationMetrics):
        plot_confusion(list(table.class_map.names), metrics.confusion, folder / "confusion.png")
    if isinstance(metrics, FieldMetrics):
        for name, path in _confusion_files(list(metrics.fields)).items():
            plot_confusion(metrics.fields[name].class_names, metrics.fields[name].confusion, folder / path)


def _confusion_files(names: list[str]) -> dict[str, str]:
    """A file name for each label field; what does not belong into one becomes ``_``."""
    files: dict[str, str] = {}
    for name in names:
        stem = re.sub(r"[^\w-]", "_", name)[:80]
        while f"confusion-{stem}.png" in files.values():
            stem += "_"
        files[name] = f"confusion-{stem}.png"
    return files
