"""Going on with a run: its options as saved, its model as saved."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path

from detseg.config import TrainConfig
from detseg.engine.checkpoint import Checkpoint
from detseg.errors import DataError
from detseg.models import Classifier, Detector, ModelDescription, build_model
from detseg.recipes.model import freeze_as


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """The same, with paths that a later command can use from any folder."""

    def absolute(path: str) -> str:
        return str(Path(path).resolve())

    return replace(
        config,
        data=absolute(config.data) if config.data else "",
        images=absolute(config.images) if config.images else None,
        split_file=absolute(config.split_file) if config.split_file else None,
    )


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


def resumed_model(checkpoint: Checkpoint, config: TrainConfig) -> Detector | Classifier:
    """The model that a checkpoint describes, frozen as the run froze it."""
    model = build_model(ModelDescription.from_dict(checkpoint.model))
    freeze_as(model, config.freeze, config.trainable_layers)
    return model
