"""Compare starting weights: the same images and the same minutes of training for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from detseg.annotations import AnnotationTable, write_split
from detseg.annotations.from_options import load_table
from detseg.benchmarks.training_options import training_options
from detseg.class_names import class_names
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.models.build import architecture_of
from detseg.models.create import create_model
from detseg.models.weights.bundled import stages_to_load
from detseg.options import TrainConfig, TransferConfig
from detseg.options.defaults import DEMO
from detseg.options.text import to_flags
from detseg.reports.table import align
from detseg.runtime.files import write_json, write_text
from detseg.runtime.machine import describe_machine
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.user_command import user_command
from detseg.training.fit import fit
from detseg.training.metrics_log import minutes_of, read_rows
from detseg.training.run_splits import run_splits
from detseg.training.task_choice import pick_task

BUDGETS = (3.0, 20.0)
SEEDS = (0, 1, 2)
CLASSIFIER_SIZE = 224
METRICS = {
    "detect": {"bbox_AP": "box AP", "bbox_AP50": "box AP50"},
    "segment": {"bbox_AP": "box AP", "bbox_AP50": "box AP50", "segm_AP": "mask AP", "segm_AP50": "mask AP50"},
    "classify": {"accuracy": "accuracy"},
}
"""Task -> the compared keys of metrics.jsonl, and their titles."""

_PREFIX = {"detect": "fasterrcnn_", "segment": "maskrcnn_", "classify": ""}
_MAY_CHANGE = ("seeds", "budgets", "arms", "imagenet", "output", "workers")
"""Options that a later call with the same output may change: the list of runs, and options that change no result."""


@dataclass(frozen=True)
class Arm:
    """One choice of starting weights and freezing.

    Attributes:
        model: name of the architecture.
        weights: "none", "bundled" or a file.
        freeze: "none" or "backbone".
    """

    model: str
    weights: str
    freeze: str


@dataclass(frozen=True)
class Key:
    """Identity of a run."""

    arm: str
    budget: float
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.arm.replace(' ', '-')}-{self.budget:g}min-{self.seed}"


def transfer(config: TransferConfig, *, reporter: Reporter | None = None) -> dict[str, Any]:
    """Train every arm for every budget of minutes and every seed; report mean and range of the last epochs' metrics.

    All runs share one split. Each is written to transfer.json when it ends, with transfer.md as a table. A later call
    with the same output runs only the missing runs and resumes an interrupted one.

    Raises:
        DataError: options that cannot be compared, or an output that was started with other options.
    """
    check(config)
    reporter = reporter or terminal()
    output = Path(config.output or "transfer")
    table = load_table(config)
    task = _task(config, table)
    arms = pick_arms(config, task)
    common = common_options(config, task)
    file = output / "transfer.json"
    for name, arm in arms.items():  # raises for bad weights before anything is written or trained
        create_model(arm.model, table.class_map, weights=arm.weights, label_fields=table.label_fields)
        reporter.line(f"arm {name}: {arm.model}, weights {arm.weights}, freeze {arm.freeze}")
    lr = "its default learning rate" if common["lr"] is None else f"lr {common['lr']:g}"
    reporter.line(f"all arms: {common['optimizer']}, {lr}, {common['schedule']}, image size {common['image_size']}")
    saved = _load_or_create(file, config)
    finished: list[dict[str, Any]] = saved["rows"]
    split_file = RunFolder(output).split
    if not split_file.exists():
        splits, lines = run_splits(TrainConfig(**common), table)
        reporter.lines(lines)
        write_split(splits, split_file, seed=config.seed, how=config.split_file or config.split)
    keys = [
        Key(arm, budget, seed)
        for budget in config.budgets or BUDGETS
        for seed in config.seeds or SEEDS
        for arm in arms  # innermost, so that an interrupted comparison has an equal number of runs of each arm
    ]
    missing = [key for key in keys if key not in {_key(row) for row in finished}]
    minutes = sum(key.budget for key in missing)
    reporter.line(f"{len(missing)} of {len(keys)} runs to do, {minutes:g} minutes of training")
    for key in missing:
        reporter.line(f"\n== {key.arm}, {key.budget:g} minutes, seed {key.seed}")
        row = _run(key, arms[key.arm], common, output, task, reporter)
        finished.append(row)
        write_json(file, saved)
        _report(output, saved, task)
    reporter.lines(["", *_report(output, saved, task)])
    return {"rows": finished}


def check(config: TransferConfig) -> None:
    """Raise DataError for budgets or seeds that cannot be compared, or no validation images."""
    if config.val == 0:
        raise DataError("benchmark transfer --val 0: scores need validation images; omit it")
    for name, values in (("budgets", config.budgets), ("seeds", config.seeds)):
        if values is not None and (not values or len(set(values)) != len(values)):
            raise DataError(f"--{name} {values}: give one or more, without duplicates")


def pick_arms(config: TransferConfig, task: str) -> dict[str, Arm]:
    """Return the arms to compare, by name.

    Raises:
        DataError: an unknown arm, or an imagenet arm without its weights.
    """
    prefix = _PREFIX[task]
    slim = "" if task == "classify" else "_fpn_slim"
    large, small = f"{prefix}mobilenet_v3_large{slim}", f"{prefix}mobilenet_v2{slim}"
    arms = {
        "scratch": Arm(large, "none", "none"),
        "bundled frozen": Arm(large, config.bundled, "backbone"),
        "bundled fine-tuned": Arm(large, config.bundled, "none"),
    }
    if stages_to_load(config.bundled, task) is not None:
        del arms["bundled frozen"]  # its later stages are randomly initialized and must be trained
    imagenet = config.imagenet or ""
    imagenet_arms = {
        "imagenet frozen": Arm(small, imagenet, "backbone"),
        "imagenet fine-tuned": Arm(small, imagenet, "none"),
    }
    if config.imagenet:
        arms |= imagenet_arms
    names = class_names(config.arms)
    if names is None:
        return arms
    for name in names:
        if name in imagenet_arms and name not in arms:
            raise DataError(f"--arms {name}: give its weights with --imagenet FILE (a state dict of MobileNetV2)")
        if name not in arms:
            raise DataError(f"--arms {name}: unknown arm; the arms are {', '.join({**arms, **imagenet_arms})}")
    if not names:
        raise DataError(f"--arms {config.arms!r}: give one or more of {', '.join(arms)}")
    return {name: arms[name] for name in names}


def common_options(config: TransferConfig, task: str) -> dict[str, Any]:
    """Return the TrainConfig options that all runs share; those that the arms would choose differently are set."""
    options = training_options(config)
    options |= {"task": task, "optimizer": config.optimizer or "adamw"}
    if config.lr is None and options["optimizer"] == "adamw":
        options["lr"] = 1e-3
    if config.image_size is None:  # weights of a run contain its image size
        options["image_size"] = _image_size(task) if config.data else DEMO["image_size"]
    if config.test is None:  # the validation split is not used for model selection, so it is the test split
        options["test"] = 0.0
    return options


def _image_size(task: str) -> int:
    """Return the image size that the networks of the arms are designed for, on every machine."""
    if task == "classify":
        return CLASSIFIER_SIZE
    return architecture_of(f"{_PREFIX[task]}mobilenet_v3_large_fpn_slim").image_size[0]


def _task(config: TransferConfig, table: AnnotationTable) -> str:
    task, _ = pick_task(config.task, None, table)
    if task not in METRICS:
        raise DataError(f"{table.source}: transfer does not support {task}; choose --task {', '.join(METRICS)}")
    return task


def _run(key: Key, arm: Arm, common: dict[str, Any], output: Path, task: str, reporter: Reporter) -> dict[str, Any]:
    """Train one arm; returns its row."""
    folder = output / key.folder
    if (RunFolder(folder).last).exists():  # interrupted
        run = fit(TrainConfig(resume=str(folder), device=common["device"]), reporter=reporter)
    else:
        split_file = str(RunFolder(output).split)  # already reduced to the --subset
        run_options = {
            "minutes": key.budget,
            "seed": key.seed,
            "output": str(folder),
            "split_file": split_file,
            "subset": None,
        }
        run = fit(
            TrainConfig(**common | run_options | {"model": arm.model, "weights": arm.weights, "freeze": arm.freeze}),
            reporter=reporter,
        )
    rows = read_rows(RunFolder(folder).metrics_log, run.plan.training.epochs)
    return {
        "arm": key.arm,
        "budget": key.budget,
        "seed": key.seed,
        **{name: rows[-1].get(name) for name in METRICS[task]},
        "minutes": minutes_of(rows),
        "epochs": len(rows),
        "model": arm.model,
        "weights": arm.weights,
        "lr": run.plan.optimizer.lr,
        "machine": describe_machine(pick_device(run.plan.run.device)),
    }


def _load_or_create(file: Path, config: TransferConfig) -> dict[str, Any]:
    """Return the content of transfer.json: options, commands (with that of this call) and finished runs.

    Raises:
        DataError: an earlier call had other options, so its runs cannot be compared.
    """
    options = {item.name: getattr(config, item.name) for item in fields(config) if item.name != "output"}
    saved: dict[str, Any] = {"options": options, "commands": [], "rows": []}
    if file.exists():
        saved = json.loads(file.read_text(encoding="utf-8"))
    for name, value in options.items():
        saved_value = saved["options"].get(name)
        may_change = name in _MAY_CHANGE and not (name == "imagenet" and saved_value and value)
        if saved_value != value and not may_change:
            raise DataError(
                f"{file} was started with {name.replace('_', '-')} {saved_value}, not {value}; give the same options "
                "or another --output"
            )
    saved["options"]["imagenet"] = saved["options"].get("imagenet") or options["imagenet"]
    saved["commands"] = list(dict.fromkeys([*saved["commands"], command_of(config)]))
    write_json(file, saved)
    return saved


def _key(row: dict[str, Any]) -> Key:
    return Key(row["arm"], row["budget"], row["seed"])


def _report(output: Path, saved: dict[str, Any], task: str) -> list[str]:
    """Write transfer.md; returns its table for the terminal."""
    rows = saved["rows"]
    if not rows:
        return ["no run has finished"]
    header, cells = table_of(rows, task)
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    text = [
        "# Starting weights at equal budgets",
        "",
        "Metrics of the last epoch on the validation split, mean (min to max) over seeds. Minutes include "
        "training and the evaluation after each epoch.",
        "",
        *(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells)),
        "",
        *(f"Machine: {name}" for name in machines),
        "",
        *(f"    {command}" for command in saved["commands"]),
    ]
    write_text(output / "transfer.md", "\n".join(text) + "\n")
    return align(cells, header)


def table_of(rows: Sequence[dict[str, Any]], task: str) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: a row for each budget and arm, mean (min to max) over seeds."""

    def cell(group: Sequence[dict[str, Any]], name: str, digits: int) -> str:
        values = [row[name] for row in group if row[name] is not None]
        if not values:
            return "-"
        mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
        return mean if low == high else f"{mean} ({low} to {high})"

    titles = METRICS[task]
    cells = []
    for budget, arm in sorted({(row["budget"], row["arm"]) for row in rows}, key=_order(rows)):
        group = [row for row in rows if (row["budget"], row["arm"]) == (budget, arm)]
        numbers = [cell(group, name, 3) for name in titles]
        numbers += [cell(group, "minutes", 2), cell(group, "epochs", 0), str(len(group))]
        cells.append([f"{budget:g}", arm, *numbers])
    return ["budget", "arm", *titles.values(), "minutes", "epochs", "seeds"], cells


def _order(rows: Sequence[dict[str, Any]]) -> Any:
    names = list(dict.fromkeys(row["arm"] for row in rows))
    return lambda pair: (pair[0], names.index(pair[1]))


def command_of(config: TransferConfig) -> str:
    """Return the command line with these options."""
    data = [config.data] if config.data else []
    return user_command("benchmark", "transfer", *data, *to_flags(config, exclude=("data",)))
