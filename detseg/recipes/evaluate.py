"""Score a run on labelled images, or a results file against an annotation file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from detseg.annotations import AnnotationTable, read_split
from detseg.annotations.from_options import default_workers, describe_table, load_table
from detseg.annotations.label_fields import with_fields
from detseg.checkpoints.checkpoint import load
from detseg.classes import ClassMap, LabelField
from detseg.datasets import Dataset, data_loader
from detseg.engine.evaluate import Metrics
from detseg.engine.evaluate import evaluate as run_evaluation
from detseg.engine.evaluator import AnyEvaluator, make_evaluator
from detseg.errors import DataError, in_file
from detseg.inference.predictor import pick_device
from detseg.keypoints import difference
from detseg.metrics import CocoEvaluator, evaluate_files
from detseg.models import ModelDescription
from detseg.options import DataConfig, EvaluateConfig
from detseg.runtime.files import write_json


def evaluate(config: EvaluateConfig) -> Metrics:
    """Score what ``config`` names, print the table, write metrics.json; returns the metrics."""
    if config.predictions or config.ground_truth:
        return _evaluate_files(config)
    if not config.run:
        raise DataError("nothing to evaluate; give a run folder, or --predictions with --ground-truth")
    run = Path(config.run)
    device = pick_device(config.device)
    model = load(run).to(device)
    own = saved_options(run)
    description: ModelDescription = model.description  # type: ignore[assignment]
    table = match_classes(select_part(config, run, own), description.class_map, description.label_fields)
    check_keypoints(table, description)
    metrics, evaluator = evaluate_table(
        model,
        table,
        device,
        batch_size=config.batch_size or own.get("batch_size", 1),
        workers=default_workers(device) if config.workers is None else config.workers,
        max_dets=config.max_dets,
    )
    output = Path(config.output) if config.output else _folder(run) / f"evaluate-{config.split}"
    write_evaluation(output, metrics, evaluator)
    if config.json:
        print(json.dumps(metrics.to_dict(), allow_nan=False))
    else:
        print("\n".join([*describe_table(table), *metrics.lines(), f"wrote {output / 'metrics.json'}"]))
    return metrics


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


def saved_options(run: Path) -> dict[str, Any]:
    """The options that a run was trained with; empty for a checkpoint that lies alone."""
    saved = _folder(run) / "config.toml"
    with in_file(saved):
        return tomllib.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else {}


def select_part(config: EvaluateConfig, run: Path, own: dict[str, Any]) -> AnnotationTable:
    """The part of the data that is scored: of the run's own data by its saved split, or of other data."""
    if not config.data and not own:
        raise DataError(
            f"{run}: no config.toml beside this checkpoint says which data it was trained on; name the data"
        )
    same = not config.data or (bool(own.get("data")) and Path(config.data).resolve() == Path(own["data"]).resolve())
    if same:
        names = {item.name for item in fields(DataConfig)}
        given = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(DataConfig(), name)}
        config = replace(config, **({name: own[name] for name in names if name in own} | given))
    table = load_table(config)
    if config.split == "all":
        return table
    split_file = _folder(run) / "split.json"
    if same and split_file.is_file():
        splits = read_split(table, split_file)
        if config.split not in splits:
            raise DataError(f"{run} has no {config.split} part; it has {', '.join(splits)}")
        return splits[config.split]
    rows = [row for row in range(len(table)) if str(table.split[row]) == config.split]
    if rows:
        return table.subset(rows)
    if not config.json:
        print(f"{table.source} has no {config.split} part of its own: all {len(table)} images are scored")
    return table


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


def _evaluate_files(config: EvaluateConfig) -> Metrics:
    if not (config.predictions and config.ground_truth):
        raise DataError("--predictions and --ground-truth belong together; give both")
    metrics = evaluate_files(
        config.ground_truth,
        config.predictions,
        iou_type=config.iou_type,
        max_dets=config.max_dets,
        reference=config.reference,
    )
    if config.output:
        write_json(Path(config.output) / "metrics.json", metrics.to_dict())
    print(json.dumps(metrics.to_dict(), allow_nan=False) if config.json else "\n".join(metrics.lines()))
    return metrics


def _folder(run: Path) -> Path:
    return run if run.is_dir() else run.parent
