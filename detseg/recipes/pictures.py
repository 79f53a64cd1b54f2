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
from detseg.postprocess import finish
from detseg.reports.confusion import plot_confusion
from detseg.reports.draw import draw, draw_class
from detseg.reports.sheet import sheet, write_image
from detseg.structures import RawPrediction

SHOWN = 8
"""Validation images on the sheet."""


def write_pictures(
    folder: Path, model: Detector | Classifier, table: AnnotationTable, device: torch.device, metrics: Metrics
) -> None:
    """predictions.jpg (truth left, prediction right) and, for classifiers, confusion.png, in ``folder``."""
    preprocessing = model.description.preprocessing
    pictures: list[Any] = []
    titles: list[str] = []
    step = max(1, len(table) // SHOWN)
    for record in (table[row] for row in range(0, len(table), step)[:SHOWN]):
        geometry = preprocessing.geometry(record.size_hw, record.orientation)
        image = decode_image(record.path)
        network = torch.from_numpy(preprocessing.apply(image, geometry)).permute(2, 0, 1).to(device)
        with torch.inference_mode():
            output = model([network])[0]
        if isinstance(output, RawPrediction):
            truth, found = draw(image, record, table.class_map), draw(image, finish(output, geometry), table.class_map)
            pictures += [truth, found]
            titles += [f"{record.name}: truth", "prediction"]
        else:
            pictures.append(draw_class(image, output, table.class_map))
            titles.append(f"{record.name}: {table.class_map.names[int(record.class_index[0])]}")
    if pictures:
        write_image(folder / "predictions.jpg", sheet(pictures, titles, columns=4))
    if isinstance(metrics, ClassificationMetrics):
        plot_confusion(list(table.class_map.names), metrics.confusion, folder / "confusion.png")
