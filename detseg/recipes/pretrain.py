"""Pretrain weights on rendered scenes, or on a large labelled data set."""

from __future__ import annotations

import shlex
import tomllib
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path

from detseg.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import PretrainConfig, TrainConfig
from detseg.options_text import to_flags
from detseg.runtime.processes import joined_processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder, locked
from detseg.training.fit import fit
from detseg.training.metrics_log import read_rows
from detseg.training.pretraining import new_pretraining_model, train_on_scenes, write_scenes_card
from detseg.training.weights_card import OWN_LICENCE, write_card


def pretrain(config: PretrainConfig, *, reporter: Reporter | None = None) -> Path:
    """Train on rendered scenes, or on labelled images, and write ``weights.safetensors`` (float16) and ``card.md``.

    Every round uses new scenes. After each round a checkpoint is written, from which ``--resume`` continues; the
    weights are evaluated periodically, always on the same scenes. Under ``torchrun`` the batch is divided among the
    processes.

    Raises:
        DataError: invalid options.
    """
    if config.resume:
        config = _resumed(config, Path(config.resume))
    if config.data:
        return _from_labelled(config, reporter)
    run = RunFolder(Path(config.resume or config.output))
    folder = run.path
    checkpoint = load_checkpoint(run.last) if config.resume else None
    if checkpoint is None:
        run.check_is_new()
    device = pick_device(config.device)
    start = StartingWeights.open(config.weights, config.model)
    with joined_processes(device) as processes, ExitStack() as stack:
        if config.batch_size % processes.world:
            raise DataError(
                f"--batch-size {config.batch_size} cannot be divided among {processes.world} processes; "
                f"use a multiple of {processes.world}"
            )
        stack.enter_context(locked(folder) if processes.is_main else nullcontext())
        reporter = (reporter or terminal()) if processes.is_main else silent()
        model = new_pretraining_model(config, checkpoint, start, device, reporter)
        train_on_scenes(config, folder, model, checkpoint, processes, reporter)
        if processes.is_main:
            write_scenes_card(config, folder, device, processes, start.origin(), reporter)
    return run.weights


def _resumed(config: PretrainConfig, folder: Path) -> PretrainConfig:
    """The options with which the run was started, with the current device and workers."""
    with (RunFolder(folder).config).open("rb") as file:
        saved = {name: value for name, value in tomllib.load(file).items() if name in PretrainConfig.__annotations__}
    return replace(config, **saved | {"resume": config.resume, "device": config.device, "workers": config.workers})


def _from_labelled(config: PretrainConfig, reporter: Reporter | None) -> Path:
    """Pretrain from scratch on labelled images, which are split and augmented as in ``train``."""
    start = StartingWeights.open(config.weights, config.model)
    run = fit(
        TrainConfig(
            data=config.data,
            output=config.output,
            model=config.model,
            weights=config.weights,
            image_size=config.image_size,
            rois_per_image=config.rois_per_image,
            mask_rois_per_image=config.mask_rois_per_image,
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            workers=config.workers,
            device=config.device,
            seed=config.seed,
        )
        if not config.resume
        else TrainConfig(data=config.data, resume=config.resume),
        weights=start,
        reporter=reporter,
    )
    weights, device = RunFolder(run.folder).weights, pick_device(run.config.device)
    checkpoint = load_checkpoint(RunFolder(run.folder).best)
    save_checkpoint(weights, run.model, position=checkpoint.position, metrics=checkpoint.metrics, half=True)
    write_card(
        weights,
        title=f"{run.config.model}, pretrained on {Path(config.data).name}",
        data=f"the training split of {Path(config.data).name}",
        command=shlex.join(["python", "-m", "detseg", "pretrain", *to_flags(config, exclude=("resume",))]),
        licence=OWN_LICENCE,
        rows=read_rows(RunFolder(run.folder).metrics_log, checkpoint.position.epoch),
        device=device,
        start=start.origin(),
    )
    return weights
