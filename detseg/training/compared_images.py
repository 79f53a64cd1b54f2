"""Predict validation images of a run, to compare evaluation, prediction and an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, data_loader
from detseg.errors import DataError
from detseg.inference.agreement import Agreement, AnyPrediction, compare
from detseg.inference.predictor import Predictor
from detseg.options import EvaluateConfig, ExportConfig
from detseg.postprocess import finish
from detseg.runtime.reporter import Reporter
from detseg.short_text import counted
from detseg.structures import RawPrediction
from detseg.tile_merge import merge_views
from detseg.training.evaluated_images import select_split
from detseg.training.run_evaluation import saved_options


def compare_with_torch(config: ExportConfig, model: Any, file: Path, reporter: Reporter) -> Agreement | None:
    """Predict images with the model and with its exported file, and report the worst differences.

    Returns:
        The differences; None if the data of the run is not there, which is reported: predictions for generated images
        would show little, because a detector finds nothing in them, or has ties.

    Raises:
        DataError: the differences are beyond the tolerances; or ``config.data`` cannot be used.
    """
    try:
        table = validation_images(config.run, config.data, config.images, reporter)
    except (DataError, OSError) as error:
        if config.data:
            raise
        reporter.warning(f"not compared with torch, without validation images: {error}; pass images with --data")
        return None
    exported, original = Predictor(file, "cpu"), Predictor(model, "cpu")
    total = Agreement()
    paths = [Path(table[row].path) for row in range(len(table))]
    for path in paths:
        total += compare(original(path), exported(path), path.name, original.backend.description)
    text = f"compared with torch on {counted(len(paths), 'image')}: {total.line(original.task)}"
    if not total.is_within_tolerance:
        raise DataError(f"{config.run}: the exported file differs from the run, first in {total.worst}: {text}")
    reporter.line(text)
    if not total.compared:
        reporter.warning("these images have no detections with different scores: the comparison shows little")
    return total


def validation_images(run: str, data: str | None, number: int, reporter: Reporter) -> AnnotationTable:
    """``number`` validation images of a run, or of ``data``, evenly spaced; all if there are no more.

    Raises:
        DataError, OSError: the data is not there, or cannot be used.
    """
    selection = EvaluateConfig(run=run, data=data or "")
    table = select_split(selection, Path(run), saved_options(Path(run)), reporter).table
    return table.subset(list(range(0, len(table), max(1, len(table) // number))[:number]))


def evaluated_predictions(model: Any, table: AnnotationTable, batch_size: int) -> list[AnyPrediction]:
    """The predictions that an evaluation of ``model`` on ``table`` uses, in pixels of the upright originals:
    images from the dataset, in batches of the loader."""
    dataset = Dataset(table, model.preprocessing, task=model.description.task)
    outputs: list[Any] = []
    with torch.inference_mode():
        for images, _ in data_loader(dataset, batch_size):
            outputs += model(images)
    predictions = [
        finish(output, dataset.geometry(row)) if isinstance(output, RawPrediction) else output
        for row, output in enumerate(outputs)
    ]
    if model.preprocessing.tiling is None:
        return predictions
    views = [model.preprocessing.views(record.size_hw, record.orientation) for record in table]
    ends = np.cumsum([len(parts) for parts in views]).tolist()
    return [merge_views(parts, predictions[end - len(parts) : end]) for parts, end in zip(views, ends, strict=True)]
