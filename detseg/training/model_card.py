"""Write the model card of a run: what the model is, what it was trained on, how good it is, and what it is not for."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from detseg.annotations import AnnotationTable
from detseg.annotations.from_options import class_counts
from detseg.engine.evaluate import Metrics
from detseg.inference.predictor import Predictor
from detseg.models import Model
from detseg.options.plan import Plan
from detseg.runtime.checksum import file_checksum
from detseg.runtime.files import write_text
from detseg.runtime.machine import describe_machine
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted, listed, printable_name
from detseg.training.trainer import Trainer
from detseg.training.weights_card import OWN_LICENCE, starting_licence
from detseg.version import __version__

FEW_OBJECTS = 10
"""Training objects (or images) of a class below which the card warns of it."""

FEW_IMAGES = 30
"""Evaluated images below which the card says that the metrics are uncertain."""

TIMED_IMAGES = 3
"""The median leaves out the first prediction, which is slower."""
_SHOWN_CLASSES = 100


def write_model_card(plan: Plan, trainer: Trainer, metrics: Metrics, test_metrics: Metrics | None) -> Path:
    """Write ``card.md`` to the folder of a run that has tables. Only its section about speed depends on the clock.

    Args:
        metrics: of the best weights on the validation split; without one, the losses of their epoch.
        test_metrics: of the test split; None without one.
    """
    folder, splits, model = RunFolder(trainer.folder), trainer.data.splits, trainer.model
    parts = [
        _model_part(plan, trainer, folder),
        _data_part(splits, trainer.data.fingerprint, plan),
        _metrics_part(splits, metrics, test_metrics),
        _thresholds_part(model),
        _speed_part(model, splits, trainer, folder),
        _licence_part(plan),
        _limits_part(splits, plan),
    ]
    write_text(folder.card, "\n\n".join("\n".join(part) for part in parts) + "\n")
    return folder.card


def read_card(run: Path) -> str:
    """The card of the best checkpoint of a run, or of a checkpoint file; "" if it has none: each names its file."""
    path, checkpoint = RunFolder.of(run).card, RunFolder(run).best if run.is_dir() else run
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text if file_checksum(checkpoint) in text else ""


def _table(rows: Mapping[str, object]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())]


def _cell(text: object) -> str:
    """A text in a cell of a Markdown table."""
    return printable_name(str(text)).replace("|", "\\|")


def _model_part(plan: Plan, trainer: Trainer, folder: RunFolder) -> list[str]:
    description = trainer.model.description
    preprocessing, best = description.preprocessing, trainer.position.best_epoch + 1
    size = f"shorter side {preprocessing.min_size}"
    size += f", longer side at most {preprocessing.max_size}" if preprocessing.max_size else ""
    size += f", centre crop of {preprocessing.crop}" if preprocessing.crop else ""
    size = f"{preprocessing.min_size} x {preprocessing.min_size}" if preprocessing.stretch else size
    return [
        f"# Model card: {_cell(description.arch)}, {description.task}",
        "",
        *_table(
            {
                "architecture": description.arch,
                "task": description.task,
                "classes": f"{len(description.class_map)}: {listed(description.class_map.names, 2000)}",
                "input": f"RGB, {size} pixels",
                "checkpoint": f"{folder.best.name}, sha256 {file_checksum(folder.best)}",
                "best epoch": f"{best} of {len(trainer.rows)}",
                "starting weights": Path(plan.model.weights).name,  # a card is shared, a path is not
                "program": f"detseg {__version__}",
            }
        ),
    ]


def _data_part(splits: Mapping[str, AnnotationTable], fingerprint: Mapping[str, Any], plan: Plan) -> list[str]:
    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    unit = "objects" if splits["train"].has_boxes else "images"
    counts = {name: class_counts(table) for name, table in splits.items()}
    names = splits["train"].class_map.names
    rows = [f"| {_cell(name)} | {' | '.join(str(part[name]) for part in counts.values())} |" for name in names]
    more = [f"and {len(rows) - _SHOWN_CLASSES} more classes"] if len(rows) > _SHOWN_CLASSES else []
    return [
        "## Data",
        "",
        *_table(
            {
                "fingerprint": f"sha256 {digest} (of annotations and image files)",
                "split": f"{plan.split.split}, seed {plan.run.seed}",
                **{f"images, {name}": len(table) for name, table in splits.items()},
            }
        ),
        "",
        f"Number of {unit} per class:",
        "",
        f"| class | {' | '.join(splits)} |",
        f"|---|{'---|' * len(splits)}",
        *rows[:_SHOWN_CLASSES],
        *more,
    ]


def _metrics_part(splits: Mapping[str, AnnotationTable], metrics: Metrics, test_metrics: Metrics | None) -> list[str]:
    if "val" in splits:
        lines = ["Validation split, which selected the best epoch:", *_block(metrics.lines())]
    else:
        lines = ["No validation split: losses on the training split, which say little about new images:"]
        lines += _block(metrics.lines())
    if test_metrics is not None:
        lines += ["", "Test split, which was not used for model selection:", *_block(test_metrics.lines())]
    return ["## Metrics", "", *lines]


def _block(lines: Sequence[str]) -> list[str]:
    text = "\n".join(lines).replace("```", "'''")
    return ["", "```", text, "```"]


def _thresholds_part(model: Model) -> list[str]:
    description = model.description
    if description.task == "classify":
        return ["## Thresholds", "", "None: the most probable class is predicted, whatever its probability."]
    rows = {
        "score below which nothing is predicted": description.score_threshold,
        "IoU of two detections of a class above which the weaker one is dropped": description.nms_threshold,
        "most detections per image": description.detections_per_image,
        "score from which predictions are drawn (`--min-score`)": 0.5,
    }
    return ["## Thresholds", "", *_table(rows)]


def _speed_part(model: Model, splits: Mapping[str, AnnotationTable], trainer: Trainer, folder: RunFolder) -> list[str]:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    rows: dict[str, object] = {
        "parameters": f"{parameters:,}",
        "checkpoint": f"{folder.best.stat().st_size / 1e6:.2f} MB",
    }
    files = splits.get("val", splits["train"]).files()[:TIMED_IMAGES]
    if files:
        predictor = Predictor(model, trainer.device)
        seconds = []
        for file in files:
            start = perf_counter()
            predictor(file)
            seconds.append(perf_counter() - start)
        text = f"{statistics.median(seconds) * 1000:.0f} ms, from file to prediction, one at a time"
        trainer.reporter.line(f"time per image: {text}")
        rows["time per image"] = text
    rows["machine"] = describe_machine(trainer.device)
    return ["## Speed and size on the machine of the training", "", *_table(rows)]


def _licence_part(plan: Plan) -> list[str]:
    licence = starting_licence(plan.model.weights) or "not known; see the source of the file"
    return ["## Licences", "", *_table({"starting weights": licence, "this model": OWN_LICENCE})]


def _limits_part(splits: Mapping[str, AnnotationTable], plan: Plan) -> list[str]:
    table = splits["train"]
    classify = plan.model.task == "classify"
    lines = [
        "- It knows the classes above only. "
        + ("Every image gets one of them." if classify else "Other objects are not found, or get one of them."),
        "- The metrics are those of images like the ones above; other cameras, places or seasons need an evaluation of "
        "their own (`detseg evaluate`).",
    ]
    counts = class_counts(table)
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_OBJECTS]
    if few:
        unit = "objects" if table.has_boxes else "images"
        lines.append(f"- Classes with fewer than {FEW_OBJECTS} training {unit}: {printable_name(listed(few, 500))}.")
    for name, part in splits.items():
        if name != "train" and len(part) < FEW_IMAGES:
            lines.append(f"- The {name} split has only {counted(len(part), 'image')}: its metrics are uncertain.")
    sides = [int(side) for pair in zip(table.height, table.width, strict=True) for side in pair]
    lines.append(f"- Sides of the training images: {min(sides)} to {max(sides)} pixels.")
    if table.has_boxes:
        boxes = table.boxes_xywh[table.trained_rows()][:, 2:]
        longer = boxes.max(axis=1)
        lines.append(f"- Longer sides of the training objects: {longer.min():.0f} to {longer.max():.0f} pixels.")
    return ["## Limits", "", *lines]
