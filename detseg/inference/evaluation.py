"""Evaluate a model on an annotation table and write the result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.annotations.label_fields import with_fields
from detseg.class_names import rename_option
from detseg.classes import ClassMap, LabelField
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import Metrics, validation_loss
from detseg.engine.evaluate import evaluate as run_evaluation
from detseg.engine.evaluator import AnyEvaluator, make_evaluator
from detseg.errors import DataError
from detseg.keypoints import difference
from detseg.metrics import CocoEvaluator
from detseg.models import ModelDescription
from detseg.nearest import nearest
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter
from detseg.runtime.run_folder import RunFolder


def evaluate_table(
    model: Any,
    table: AnnotationTable,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    max_dets: int | None = None,
    reporter: Reporter | None = None,
) -> tuple[Metrics, AnyEvaluator]:
    """Metrics of a detseg model on all images of ``table``, and the evaluator with the predictions."""
    task, preprocessing = model.description.task, model.description.preprocessing
    loader = data_loader(Dataset(table, preprocessing, task=task), batch_size, workers=workers)
    evaluator = make_evaluator(table, task, preprocessing, max_dets=max_dets)
    return run_evaluation(model, loader, device, evaluator=evaluator, reporter=reporter), evaluator


def table_losses(
    model: Any,
    table: AnnotationTable,
    device: torch.device,
    *,
    batch_size: int,
    workers: int,
    seed: int = 0,
    loss_weights: Mapping[str, float] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, float]:
    """Losses of a detseg model on all images of ``table``, as :func:`validation_loss` in training computes them."""
    loader = data_loader(Dataset(table, model.preprocessing, task=model.description.task), batch_size, workers=workers)
    return validation_loss(model, loader, device, seed=seed, loss_weights=loss_weights, reporter=reporter)


def write_evaluation(
    folder: Path,
    metrics: Metrics,
    evaluator: AnyEvaluator | None,
    losses: Mapping[str, float] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write metrics.json to ``folder``, and for detectors predictions.json in COCO results format.

    Args:
        evaluator: the evaluator with the predictions; None if nothing was evaluated.
        losses: written as "losses"; None to omit them.
        extra: more entries of metrics.json.
    """
    values = metrics.to_dict() | dict(extra or {}) | ({} if losses is None else {"losses": dict(losses)})
    write_json(RunFolder(folder).metrics, values)
    if isinstance(evaluator, CocoEvaluator):
        write_json(RunFolder(folder).predictions, evaluator.results())


def match_classes(
    table: AnnotationTable, class_map: ClassMap, label_fields: Sequence[LabelField] = ()
) -> AnnotationTable:
    """``table`` with labels (or label fields) renumbered to the classes of the model, matched by name.

    Raises:
        DataError: the data has a class or a label field that the model does not have.
    """
    if table.label_fields and label_fields:
        return with_fields(table, label_fields)
    if table.class_map.names == class_map.names:
        return table
    unknown = [name for name in table.class_map.names if name not in class_map.names]
    if unknown:
        missing = [name for name in class_map.names if name not in table.class_map.names] or class_map.names
        new = (nearest(unknown[0], missing) or missing)[0]
        raise DataError(
            f"{table.source}: class {', '.join(map(repr, unknown))} is not a class of the model, which has "
            f"{', '.join(map(repr, class_map.names))}; give it a name of the model, such as "
            f"{rename_option(unknown[0], new)}, or select other classes with --classes"
        )
    to_label = np.array([0, *(class_map.label_of(name) for name in table.class_map.names)])
    ids = dict(zip(table.class_map.names, table.class_map.category_ids, strict=True))
    largest_id = max([*ids.values(), *class_map.category_ids], default=0)
    category_ids = [ids.get(name, largest_id + 1 + i) for i, name in enumerate(class_map.names)]
    index = table.class_index
    return replace(
        table,
        class_map=ClassMap(class_map.names, tuple(category_ids)),
        label=to_label[table.label].astype(np.int32),
        class_index=np.where(index >= 0, to_label[index + 1] - 1, -1),
    )


def check_keypoints(table: AnnotationTable, description: ModelDescription) -> None:
    """DataError unless ``table`` has the keypoints of the model, in the same order."""
    mismatch = difference(description.keypoints, table.keypoint_schema) if description.keypoints else ""
    if mismatch:
        raise DataError(
            f"{table.source}: the keypoints of the model differ from those of the data ({mismatch}); evaluate on data "
            f"with {', '.join(description.keypoints.names if description.keypoints else ())}"
        )
