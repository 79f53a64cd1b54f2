"""Resume a run from its saved options and checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.annotations.fingerprint import Fingerprint, differences
from detseg.checkpoints.checkpoint import Checkpoint, Position, described_model
from detseg.checkpoints.rotation import latest_checkpoint
from detseg.command_line.saved_options import read_saved_options
from detseg.engine.train import EpochTotals
from detseg.errors import DataError, in_file
from detseg.models import Model
from detseg.models.create import freeze_as
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.runtime.files import write_text
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted
from detseg.training.moved_data import PLACES, new_places, remedy

MAY_CHANGE = (
    *("epochs", "resume", "device", "workers", "checkpoint_every", "keep_checkpoints"),
    *("cache_dir", "cache_limit", "decoded_limit", "coco_lines", "tensorboard", "tensorboard_weights", "figures"),
    "check",
)
"""Options that may change when a run is resumed, besides the place of its data. On a CPU, with the same number of
threads, all but the first keep its result bit-identical."""


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return the options with absolute paths, so that a later command can use them from any folder."""

    names = ("data", "images", "val_annotations", "split_file", "cache_dir")
    paths = {name: getattr(config, name) for name in names if getattr(config, name)}
    absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items()}
    return replace(config, **absolute)


def resumed_config(config: TrainConfig, run: Path, reporter: Reporter | None = None) -> TrainConfig:
    """Return the saved config of ``run`` with the changes of ``config``, which may also name a new place of the data.

    Raises:
        DataError: another change than those in ``MAY_CHANGE``.
    """
    path = RunFolder(run).config
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume expects a run folder")
    with in_file(path):
        options = read_saved_options(path)
        unknown = sorted(options.keys() - {item.name for item in fields(TrainConfig)})
        if unknown:
            raise DataError(f"{unknown[0]!r} is not an option of train; remove the line")
        saved = TrainConfig(**options)
    default = TrainConfig()
    for item in fields(TrainConfig):
        new_value, saved_value = getattr(config, item.name), getattr(saved, item.name)
        if item.name in (*MAY_CHANGE, *PLACES) or new_value in (getattr(default, item.name), saved_value):
            continue
        flag = item.name.replace("_", "-")
        raise DataError(
            f"a resumed run keeps its options: --{flag} {new_value} was {saved_value}; omit it, or start a new run"
        )
    new = {name: value for name in MAY_CHANGE if (value := getattr(config, name)) != getattr(default, name)}
    new |= new_places({item.name: getattr(saved, item.name) for item in fields(TrainConfig)}, config)
    if new.get("epochs", saved.epochs) != saved.epochs:
        (reporter or terminal()).line(
            f"epochs {saved.epochs} -> {new['epochs']}: finished epochs stay; from now on the {saved.schedule} "
            f"schedule is that of a run of {new['epochs']} epochs, so the result differs from one started with that "
            "number"
        )
    return replace(saved, **new | {"resume": str(run)})


def saved_epochs(run: Path) -> int:
    """Return the epochs of the saved config of ``run``."""
    path = RunFolder(run).config
    return int(read_saved_options(path).get("epochs", 0))


def write_plan(plan: Plan, folder: Path) -> None:
    """Write ``config.toml``, from which a run is resumed."""
    write_text(RunFolder(folder).config, plan.to_toml(str(folder)))


def newest_checkpoint(
    run: Path, data: Fingerprint | None, splits: Mapping[str, AnnotationTable], reporter: Reporter | None = None
) -> Checkpoint | None:
    """Return the newest intact checkpoint of ``run``; None if there is none yet. Reports which ones are corrupt.

    Args:
        data: of ``splits``; None in a process that does not check it.

    Raises:
        DataError: no checkpoint can be read, or the data is not the data that the run was trained on.
    """
    checkpoint, warnings = latest_checkpoint(run)
    for warning in warnings:
        (reporter or terminal()).warning(warning)
    if checkpoint is None or not checkpoint.data or data is None:
        return checkpoint
    changed = differences(checkpoint.data, data, splits)
    if changed:
        raise DataError(f"{run} was trained on other data: {'; '.join(changed)}. Nothing was written. {remedy(run)}")
    return checkpoint


def threads_line(checkpoint: Checkpoint, device: str) -> list[str]:
    """Return a line if a run on a CPU is resumed with another number of threads, on which its last bits depend."""
    before, now = checkpoint.threads, torch.get_num_threads()
    if device != "cpu" or before in (0, now):
        return []
    return [
        f"note: trained with {counted(before, 'thread')}, now {now}: the last bits of the result can differ; for the "
        f"same bytes set OMP_NUM_THREADS={before}"
    ]


def restored_totals(checkpoint: Checkpoint, processes: Processes) -> EpochTotals:
    """Return the totals of this process from a checkpoint; if the number of processes changed, the main process
    gets all of them."""
    totals = checkpoint.totals
    if len(totals) == processes.world:
        return totals[processes.rank]
    return EpochTotals.of_all(totals) if processes.is_main else EpochTotals(steps=totals[0].steps)


def resumed_line(run: Path, position: Position) -> str:
    """Return a line that states where the run resumes."""
    if not position.step:
        return f"{run} has no checkpoint yet: starting with its saved options"
    if position.micro_batches:
        return f"resuming {run} in epoch {position.epoch + 1}, after {position.micro_batches} batches"
    return f"resuming {run} after epoch {position.epoch}"


def resumed_model(checkpoint: Checkpoint, plan: Plan) -> Model:
    """Build the model of a checkpoint, frozen as in the run."""
    model = described_model(checkpoint)
    model.load_state_dict(checkpoint.weights)  # before features of frozen parts are computed from them
    if checkpoint.channels_last:  # the last bits of a convolution depend on it
        model.to(memory_format=torch.channels_last)
    freezing = plan.freezing
    freeze_as(model, freezing.freeze, freezing.trainable_layers, norm_eval=freezing.norm_eval)
    return model
