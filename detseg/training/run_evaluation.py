"""Evaluate the checkpoint of a run on labelled images: metrics, losses and result files."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from detseg.annotations import AnnotationTable
from detseg.annotations.from_options import describe_table
from detseg.checkpoints.checkpoint import load
from detseg.command_line.saved_options import read_saved_options
from detseg.engine.evaluate import Metrics
from detseg.inference.evaluation import (
    check_keypoints,
    evaluate_table,
    match_classes,
    table_losses,
    write_evaluation,
)
from detseg.inference.predictor import pick_device, with_tiles
from detseg.metrics.coco_metrics import coco_lines
from detseg.models import ModelDescription
from detseg.models.create import freeze_as
from detseg.old_names import current_options
from detseg.options import EvaluateConfig, TrainConfig
from detseg.runtime.machine import MachineFacts
from detseg.runtime.reporter import Reporter, silent
from detseg.runtime.run_folder import RunFolder, locked
from detseg.training.evaluated_images import select_split
from detseg.training.figure_files import write_result_figures
from detseg.training.loss_weights import parse_loss_weights

__all__ = ["evaluate_run", "saved_options", "select_split"]


def evaluate_run(config: EvaluateConfig, reporter: Reporter) -> Metrics:
    """Evaluate ``config.run``, report the metrics, write metrics.json and predictions.json, and return the metrics."""
    run = Path(config.run)
    device = pick_device(config.device)
    model = load(run).to(device)
    run_options = saved_options(run)
    description: ModelDescription = model.description  # type: ignore[assignment]
    preprocessing = with_tiles(description.preprocessing, config.tile, config.overlap, config.whole_image)
    description = replace(description, preprocessing=preprocessing)
    model.description = description  # type: ignore[assignment]
    selected = select_split(config, run, run_options, reporter)
    table = selected.table
    table = match_classes(table, description.class_map, description.label_fields)
    check_keypoints(table, description)
    if not config.json:
        reporter.lines([*describe_table(table), *preprocessing.lines()])
    metrics, evaluator = evaluate_table(
        model,
        table,
        device,
        batch_size=config.batch_size or run_options.get("batch_size", 1),
        workers=MachineFacts.of(device).default_workers if config.workers is None else config.workers,
        max_dets=config.max_dets,
        reporter=reporter,
    )
    losses = _losses(config, model, table, run_options, reporter) if config.loss else None
    output = Path(config.output) if config.output else RunFolder.of(run).evaluation(config.split)
    extra: dict[str, Any] = {"training_images": len(selected.training_images)} if selected.training_images else {}
    if preprocessing.tiling is not None:
        extra["tiling"] = asdict(preprocessing.tiling)
    with locked(output):
        write_evaluation(output, metrics, evaluator, losses, extra)
        if config.figures:
            figure_reporter = silent() if config.json else reporter  # the only line is the JSON
            write_result_figures(RunFolder(output).figures, table, evaluator.predictions, model, figure_reporter)
    values = metrics.to_dict() | extra | ({} if losses is None else {"losses": losses})
    if config.json:
        reporter.metrics(config.split, values, json.dumps(values, allow_nan=False))
    else:
        lines = [*metrics.lines(), *(coco_lines(metrics) if config.coco_lines else [])]
        lines = [f"{selected.title}: {lines[0]}", *lines[1:], *_loss_lines(losses or {}, len(table))]
        reporter.metrics(config.split, values, "\n".join(lines))
        reporter.done(output, f"wrote {output / 'metrics.json'}")
    return metrics


def _losses(
    config: EvaluateConfig, model: Any, table: AnnotationTable, run_options: dict[str, Any], reporter: Reporter
) -> dict[str, float]:
    """Losses as in the training of the run: with its frozen parts, seed and loss weights."""
    names = {item.name for item in fields(TrainConfig)}  # the file of a pretraining has other options too
    saved = {name: value for name, value in current_options(run_options)[0].items() if name in names}
    options = TrainConfig(**saved)
    freeze_as(model, options.freeze, options.trainable_layers, norm_eval=bool(options.norm_eval))
    device = next(model.parameters()).device
    return table_losses(
        model,
        table,
        device,
        batch_size=config.batch_size or options.batch_size or 1,
        workers=MachineFacts.of(device).default_workers if config.workers is None else config.workers,
        seed=options.seed,
        loss_weights=parse_loss_weights(options.loss_weights, model.loss_names()),
        reporter=reporter,
    )


def _loss_lines(losses: dict[str, float], images: int) -> list[str]:
    width = max(map(len, losses), default=0)
    lines = [f"  {name:{width}}  {value:.4f}" for name, value in losses.items()]
    return [f"losses, means over {images} images:", *lines] if losses else []


def saved_options(run: Path) -> dict[str, Any]:
    """The options that a run was trained with; empty for a checkpoint outside a run folder."""
    saved = RunFolder.of(run).config
    return read_saved_options(saved) if saved.is_file() else {}
