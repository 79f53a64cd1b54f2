"""Going on with a run: its options as saved, its model as saved."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from detseg.annotations.fingerprint import Fingerprint, differences
from detseg.checkpoints.checkpoint import Checkpoint, Position, described_model
from detseg.checkpoints.rotation import latest_checkpoint
from detseg.errors import DataError, in_file
from detseg.models import Model
from detseg.models.create import freeze_as
from detseg.old_names import current_options
from detseg.options import TrainConfig, to_toml
from detseg.runtime.files import write_text

MAY_CHANGE = (
    *("epochs", "resume", "device", "workers", "checkpoint_every", "keep_checkpoints"),
    *("cache_dir", "cache_limit", "decoded_limit"),
)
"""Options that a resumed run may be given anew. On a CPU all but the first leave its result as it is, to the bit."""


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same, with paths that a later command can use from any folder."""

    names = ("data", "images", "val_annotations", "split_file", "cache_dir")
    paths = {name: getattr(config, name) for name in names if getattr(config, name)}
    absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items()}
    return replace(config, **absolute)


def resumed_config(config: TrainConfig, run: Path) -> TrainConfig:
    """The saved config of ``run``. Only ``MAY_CHANGE`` may be new; else DataError."""
    path = run / "config.toml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume takes the folder of a run")
    with in_file(path):
        saved = TrainConfig(**current_options(tomllib.loads(path.read_text(encoding="utf-8")))[0])
    default = TrainConfig()
    for item in fields(TrainConfig):
        given, kept = getattr(config, item.name), getattr(saved, item.name)
        if item.name in MAY_CHANGE or given in (getattr(default, item.name), kept):
            continue
        flag = item.name.replace("_", "-")
        raise DataError(
            f"a resumed run keeps its options: --{flag} {given} was {kept}; leave it out, or start a new run"
        )
    new = {name: value for name in MAY_CHANGE if (value := getattr(config, name)) != getattr(default, name)}
    if new.get("epochs", saved.epochs) != saved.epochs:
        print(
            f"epochs {saved.epochs} -> {new['epochs']}: what is done stays; from here on the {saved.schedule} schedule "
            f"is that of a run of {new['epochs']} epochs, so its end differs from a run that was begun with so many"
        )
    return replace(saved, **new | {"resume": str(run)})


def write_options(config: TrainConfig, folder: Path) -> None:
    """``config.toml``, from which a run goes on."""
    write_text(folder / "config.toml", to_toml(replace(config, output=str(folder), resume=None)))


def newest_checkpoint(run: Path, data: Fingerprint) -> Checkpoint | None:
    """The newest whole checkpoint of ``run``; None if it was stopped before its first. CorruptFileError ones are told.

    Raises:
        DataError: none can be read, or the data is not what the run was trained on.
    """
    checkpoint, lines = latest_checkpoint(run)
    print("\n".join(lines), end="\n" if lines else "")
    if checkpoint is None or not checkpoint.data:
        return checkpoint
    changed = differences(checkpoint.data, data)
    if changed:
        raise DataError(
            f"{run} was trained on other data: {'; '.join(changed)}. Nothing was written. Bring the data back, or "
            f"start a new run with --weights {run}"
        )
    return checkpoint


def resumed_line(run: Path, position: Position) -> str:
    """Where the run goes on."""
    if not position.step:
        return f"{run} has no checkpoint yet: beginning with its options"
    if position.micro_batches:
        return f"resuming {run} in epoch {position.epoch}, after {position.micro_batches} batches"
    return f"resuming {run} after epoch {position.epoch - 1}"


def resumed_model(checkpoint: Checkpoint, config: TrainConfig) -> Model:
    """The model that a checkpoint describes, frozen as the run froze it."""
    model = described_model(checkpoint)
    model.load_state_dict(checkpoint.weights)  # before anything is computed from the frozen ones
    freeze_as(model, config.freeze, config.trainable_layers, norm_eval=bool(config.norm_eval))
    return model
