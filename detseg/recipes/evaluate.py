"""Evaluate a run on labelled images, or a results file against an annotation file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from detseg.errors import DataError
from detseg.metrics import CocoMetrics, evaluate_files
from detseg.metrics.coco_metrics import coco_lines
from detseg.options import EvaluateConfig
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder, locked

if TYPE_CHECKING:
    from detseg.engine.evaluate import Metrics


def evaluate(config: EvaluateConfig, *, reporter: Reporter | None = None) -> Metrics:
    """Evaluate the run or files in ``config``, report the metrics, write metrics.json, and return the metrics."""
    reporter = reporter or terminal()
    if config.predictions or config.ground_truth:
        return _evaluate_files(config, reporter)
    if not config.run:
        raise DataError("nothing to evaluate; pass a run folder, or --predictions with --ground-truth")
    _check_is_free(config)
    from detseg.training.run_evaluation import evaluate_run  # loads torch, which results files do not need

    return evaluate_run(config, reporter)


def _check_is_free(config: EvaluateConfig) -> None:
    """Raise DataError if another process writes into the folder of the results: now, not after the evaluation."""
    folder = Path(config.output) if config.output else RunFolder.of(config.run).evaluation(config.split)
    if folder.is_dir():
        with locked(folder):
            pass


def _evaluate_files(config: EvaluateConfig, reporter: Reporter) -> CocoMetrics:
    if config.loss:
        raise DataError("--loss with --predictions: a results file has no losses; evaluate a run folder, or omit it")
    if config.classes is not None or config.class_attribute is not None:
        name = "--classes" if config.classes is not None else "--class-attribute"
        raise DataError(f"{name} with --predictions: all classes of the ground truth are evaluated; omit it")
    if config.figures:
        raise DataError("--figures with --predictions: they need the images; evaluate a run folder, or omit it")
    if not (config.predictions and config.ground_truth):
        raise DataError("--predictions and --ground-truth must be used together; pass both")
    metrics = evaluate_files(
        config.ground_truth,
        config.predictions,
        iou_type=config.iou_type,
        max_dets=config.max_dets,
        reference=config.reference,
        rename=config.rename,
    )
    if config.output:
        with locked(Path(config.output)):
            write_json(RunFolder(Path(config.output)).metrics, metrics.to_dict())
    lines = [*metrics.lines(), *(coco_lines(metrics) if config.coco_lines else [])]
    text = json.dumps(metrics.to_dict(), allow_nan=False) if config.json else "\n".join(lines)
    reporter.metrics("", metrics.to_dict(), text)
    return metrics
