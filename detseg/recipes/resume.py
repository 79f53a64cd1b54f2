"""Going on with a run: its options as saved, its model as saved."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from detseg.config import TrainConfig
from detseg.engine.checkpoint import Checkpoint
from detseg.errors import DataError
from detseg.models import Model, ModelDescription, build_model
from detseg.recipes.model import freeze_as


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same, with paths that a later command can use from any folder."""

    names = ("data", "images", "val_annotations", "split_file")
    paths = {name: getattr(config, name) for name in names if getattr(config, name)}
    absolute: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in paths.items()}
    return replace(config, **absolute)


def resumed_config(config: TrainConfig, run: Path) -> TrainConfig:
    """The saved config of ``run``. Only --epochs, --device and --workers may be new; else DataError."""
    path = run / "config.toml"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --resume takes the folder of a run")
    saved = TrainConfig(**tomllib.loads(path.read_text(encoding="utf-8")))
    default = TrainConfig()
    for item in fields(TrainConfig):
        given, kept = getattr(config, item.name), getattr(saved, item.name)
        if item.name in ("resume", "epochs", "device", "workers") or given in (getattr(default, item.name), kept):
            continue
        flag = item.name.replace("_", "-")
        raise DataError(
            f"a resumed run keeps its options: --{flag} {given} was {kept}; leave it out, or start a new run"
        )
    new = {name: getattr(config, name) for name in ("epochs", "device", "workers") if getattr(config, name) is not None}
    return replace(saved, **new, resume=str(run))


def resumed_model(checkpoint: Checkpoint, config: TrainConfig) -> Model:
    """The model that a checkpoint describes, frozen as the run froze it."""
    model = build_model(ModelDescription.from_dict(checkpoint.model))
    freeze_as(model, config.freeze, config.trainable_layers)
    return model
