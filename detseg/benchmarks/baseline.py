"""Compare with the torchvision baseline loop: same images, backbone weights, epochs and batches, several seeds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations import read_split
from detseg.annotations.from_options import load_table
from detseg.benchmarks.torchvision_loop import train_baseline
from detseg.benchmarks.training_options import training_options
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.models.build import architecture_of
from detseg.options import BaselineConfig, TrainConfig
from detseg.pixel_values import checked_range
from detseg.reports.table import align
from detseg.runtime.files import write_json
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.training.fit import fit
from detseg.training.metrics_log import Row, read_rows


def benchmark(config: BaselineConfig, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train both implementations once per seed, one after the other, and report mean and range of AP and minutes.

    Both are evaluated by the same evaluator on the same validation images after the last epoch, so that neither
    benefits from selecting an epoch. All seeds share one split. The last column is the fairest one: minutes until the
    final AP of the baseline loop. For the baseline only training counts; for detseg everything up to the first epoch
    with this AP: reading the data, computing features, each evaluation. Writes benchmark.json in the output folder.

    Raises:
        DataError: options that cannot be compared.
    """
    if not config.data:
        raise DataError("benchmark baseline without data; give a folder or annotation file of labelled images")
    if config.val == 0:
        raise DataError("benchmark baseline --val 0: scores need validation images; omit it")
    output = Path(config.output or "benchmark")
    if (output / "benchmark.json").exists():
        raise DataError(f"{output} already contains a benchmark; give another --output")
    model = config.model or ""
    if not model.startswith("fasterrcnn_") or "timm:" in model or config.weights in (None, "coco", "imagenet"):
        raise DataError(
            "both implementations need the same backbone and weights: give --model fasterrcnn_... (a torchvision "
            "backbone) and --weights FILE, a classification state dict, or none"
        )
    options = training_options(config)
    reporter, table, rows = reporter or terminal(), load_table(config), []
    for seed in config.seeds or (0, 1, 2):
        folder, start = output / f"detseg-{seed}", time.perf_counter()
        run_options = {"seed": seed, "output": str(folder), "split_file": _split_file(output)}
        run = fit(TrainConfig(**options | run_options), reporter=reporter)
        wall_seconds = time.perf_counter() - start
        splits = read_split(table, RunFolder(folder).split)
        epochs = read_rows(RunFolder(folder).metrics_log, run.plan.training.epochs)
        metrics, baseline_seconds = train_baseline(
            splits["train"],
            splits["val"],
            backbone_name=architecture_of(run.plan.model.model).backbone.removesuffix("_fine"),
            weights=run.plan.model.weights,
            image_size=run.plan.model.image_size or 800,
            epochs=run.plan.training.epochs,
            batch_size=run.plan.training.batch_size,
            seed=seed,
            device=pick_device(run.plan.run.device),
            value_range=checked_range(run.plan.model.value_range),
            reporter=reporter,
        )
        baseline = metrics.scalars()
        seconds = sum(len(splits["train"]) / row["images_per_second"] for row in epochs)
        rows.append(_row("detseg", seed, epochs[-1], seconds, seconds_to(baseline["bbox_AP"], epochs, wall_seconds)))
        rows.append(_row("torchvision baseline", seed, baseline, baseline_seconds, baseline_seconds))
        write_json(output / "benchmark.json", rows)  # each seed takes minutes: save the results so far
    reporter.lines(_table(rows))
    return {"rows": rows}


def _split_file(output: Path) -> str | None:
    """Return the split file of the first run, for the later runs; None for the first run."""
    return next((str(path) for path in sorted(output.glob(f"detseg-*/{RunFolder(output).split.name}"))), None)


def seconds_to(score: float | None, epochs: Sequence[Row], wall_seconds: float) -> float | None:
    """Return the seconds of a run until the end of the first epoch with at least this box AP; None without one.

    Args:
        epochs: rows of its metrics.jsonl.
        wall_seconds: of the whole run; time outside of epochs counts as before the first epoch.
    """
    elapsed = wall_seconds - sum(row["seconds"] for row in epochs)
    for row in epochs:
        elapsed += row["seconds"]
        if score is not None and row.get("bbox_AP", -1.0) >= score:
            return elapsed
    return None


def _row(implementation: str, seed: int, numbers: Any, seconds: float, to_baseline: float | None) -> dict[str, Any]:
    return {
        "way": implementation,
        "seed": seed,
        "AP": numbers["bbox_AP"],
        "AP50": numbers["bbox_AP50"],
        "minutes": seconds / 60,
        "minutes_to_baseline_AP": None if to_baseline is None else to_baseline / 60,
    }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return header and rows of mean and range over seeds."""

    def cell(implementation: str, name: str, digits: int) -> str:
        values = [row[name] for row in rows if row["way"] == implementation]
        if None in values:
            return f"none for {values.count(None)} of {len(values)} seeds"
        mean, low, high = float(np.mean(values)), min(values), max(values)
        return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    implementations = list(dict.fromkeys(row["way"] for row in rows))
    columns = {"AP": 3, "AP50": 3, "minutes": 1, "minutes_to_baseline_AP": 2}
    header = ["", "AP", "AP50", "minutes of training", "minutes to the baseline loop's AP"]
    return align(
        [[name, *[cell(name, key, digits) for key, digits in columns.items()]] for name in implementations], header
    )
