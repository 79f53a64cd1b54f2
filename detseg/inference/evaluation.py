"""Evaluate a model on an annotation table and write the result files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.annotations.label_fields import with_fields
from detseg.classes import ClassMap, LabelField
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import Metrics
from detseg.engine.evaluate import evaluate as run_evaluation
from detseg.engine.evaluator import AnyEvaluator, make_evaluator
from detseg.errors import DataError
from detseg.keypoints import difference
from detseg.metrics import CocoEvaluator
from detseg.models import ModelDescription
from detseg.runtime.files import write_json


def evaluate_table(
    model: Any,
    table: AnnotationTable,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    max_dets: int | None = None,
) -> tuple[Metrics, AnyEvaluator]:
    """Metrics of one of this project's models on all images of ``table``, and the evaluator with its predictions."""
    task, preprocessing = model.description.task, model.description.preprocessing
    loader = data_loader(Dataset(table, preprocessing, task=task), batch_size, workers=workers)
    evaluator = make_evaluator(table, task, preprocessing, max_dets=max_dets)
    return run_evaluation(model, loader, device, evaluator=evaluator), evaluator


def write_evaluation(folder: Path, metrics: Metrics, evaluator: AnyEvaluator) -> None:
    """metrics.json, and predictions.json in COCO results form for detectors, in ``folder``."""
    write_json(folder / "metrics.json", metrics.to_dict())
    if isinstance(evaluator, CocoEvaluator):
        write_json(folder / "predictions.json", evaluator.results())


def match_classes(
    table: AnnotationTable, class_map: ClassMap, label_fields: Sequence[LabelField] = ()
) -> AnnotationTable:
    """``table`` with its labels renumbered to the model's classes, matched by name; label fields too.

    Raises:
        DataError: the data has a class or a label field that the model does not know.
    """
    if table.label_fields and label_fields:
        return with_fields(table, label_fields)
    if table.class_map.names == class_map.names:
        return table
    unknown = [name for name in table.class_map.names if name not in class_map.names]
    if unknown:
        raise DataError(
            f"{table.source}: class {', '.join(map(repr, unknown))} is not known to the model, which has "
            f"{', '.join(map(repr, class_map.names))}; choose classes with --classes"
        )
    to_label = np.array([0, *(class_map.label_of(name) for name in table.class_map.names)])
    ids = dict(zip(table.class_map.names, table.class_map.category_ids, strict=True))
    spare = max([*ids.values(), *class_map.category_ids], default=0)
    category_ids = [ids.get(name, spare + 1 + i) for i, name in enumerate(class_map.names)]
    index = table.class_index
    return replace(
        table,
        class_map=ClassMap(class_map.names, tuple(category_ids)),
        label=to_label[table.label].astype(np.int32),
        class_index=np.where(index >= 0, to_label[index + 1] - 1, -1),
    )


def check_keypoints(table: AnnotationTable, description: ModelDescription) -> None:
    """DataError unless ``table`` has the keypoints that the model finds, in the same order."""
    why = difference(description.keypoints, table.keypoint_schema) if description.keypoints else ""
    if why:
        raise DataError(
            f"{table.source}: the model's keypoints are not those of the data ({why}); evaluate on data with "
            f"{', '.join(description.keypoints.names if description.keypoints else ())}"
        )
