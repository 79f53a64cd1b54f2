"""Pretrain weights on rendered scenes, or on a large labelled data set, and write them as a small file."""

from __future__ import annotations

import shlex
from dataclasses import fields, replace
from pathlib import Path

import torch

from detseg.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from detseg.command_line.saved_options import read_saved_options
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import PretrainConfig, TrainConfig
from detseg.options.text import to_flags, to_toml
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.user_command import user_command
from detseg.synthetic.scenes import SHAPE_FAMILIES, TEXTURES
from detseg.training.failed_write import stating_what_is_kept
from detseg.training.finished_run import FinishedRun
from detseg.training.fit import Run, fit, fit_data, run_context
from detseg.training.metrics_log import read_rows
from detseg.training.pretraining import new_pretraining_model, scenes_plan
from detseg.training.run_data import RunContext
from detseg.training.scene_data import SceneData
from detseg.training.weights_card import LICENCE, OWN_LICENCE, write_card


def pretrain(config: PretrainConfig, *, reporter: Reporter | None = None) -> Path:
    """Train on rendered scenes, or on labelled images, and write ``weights.safetensors`` (float16) and ``card.md``.

    It is a run like that of ``train``: it evaluates periodically, always on the same scenes, keeps the best weights,
    and stops and resumes exactly. Every epoch has new scenes. Under ``torchrun`` the batch is divided among the
    processes.

    Raises:
        DataError: invalid options.
        Interrupted: an exit was requested; a checkpoint was written.
    """
    if config.resume:
        folder = Path(config.resume)
        config, finished = _resumed(config, folder), FinishedRun.read(folder)
        if finished and RunFolder(folder).weights.is_file():
            with run_context(pick_device(config.device), reporter) as context:
                return _report_finished(folder, finished, context.reporter)
    device = pick_device(config.device)
    start = StartingWeights.open(config.weights, config.model)
    if config.data:
        run = fit(_labelled_options(config), weights=start, reporter=reporter)
        with stating_what_is_kept(run.folder, _resume(run)):
            weights = _write_weights(config, run, start, 1)
        (reporter or terminal()).done(run.folder, _done_text(weights))
        return weights
    with run_context(device, reporter) as context:
        run = _train_on_scenes(config, device, start, context)
        weights = RunFolder(run.folder).weights
        if context.processes.is_main:
            with stating_what_is_kept(run.folder, _resume(run)):
                weights = _write_weights(config, run, start, context.processes.world)
            context.reporter.done(run.folder, _done_text(weights))
        context.processes.wait()
    return weights


def _done_text(weights: Path) -> str:
    command = user_command("train", "DATA", "--weights", weights)
    return f"wrote {weights} and card.md; start from these weights with:\n  {command}"


def _resume(run: Run) -> str:
    return user_command("pretrain", "--resume", run.folder)


def _report_finished(folder: Path, finished: FinishedRun, reporter: Reporter) -> Path:
    """Report that a run is finished; returns the path of its weights."""
    weights = RunFolder(folder).weights
    lines = [
        finished.first_line(folder),
        f"its weights are {weights}; start from them with:",
        f"  {user_command('train', 'DATA', '--weights', weights)}",
    ]
    reporter.done(folder, "\n".join(lines))
    return weights


def _train_on_scenes(config: PretrainConfig, device: torch.device, start: StartingWeights, context: RunContext) -> Run:
    world = context.processes.world
    if config.batch_size % world:
        raise DataError(
            f"--batch-size {config.batch_size} cannot be divided among {world} processes; use a multiple of {world}"
        )
    if not config.resume:
        RunFolder(Path(config.output)).check_is_new()
    model = None if config.resume else new_pretraining_model(config, start, context.reporter)
    scenes = SceneData(
        config.epoch_steps * config.batch_size, config.val_scenes, config.image_size, config.seed, to_toml(config)
    )
    return fit_data(scenes_plan(config, str(device), world), scenes, model, weights=start, context=context)


def _resumed(config: PretrainConfig, folder: Path) -> PretrainConfig:
    """The options with which the run was started, with the current device and workers."""
    run = RunFolder(folder)
    path = run.scenes if run.scenes.is_file() else run.config  # of a run on labelled images, or of version 0.1
    saved = read_saved_options(path, "pretrain")
    names = {item.name for item in fields(PretrainConfig)}
    kept = {name: value for name, value in saved.items() if name in names}
    if kept.get("data") and config.data:
        kept["data"] = config.data  # moved; its fingerprint is compared
    return replace(config, **kept | {"resume": config.resume, "device": config.device, "workers": config.workers})


def _labelled_options(config: PretrainConfig) -> TrainConfig:
    """The options of a run from scratch on labelled images, which are split and augmented as in ``train``."""
    if config.resume:
        return TrainConfig(data=config.data, resume=config.resume)
    return TrainConfig(
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


def _write_weights(config: PretrainConfig, run: Run, start: StartingWeights, world: int) -> Path:
    """Write the best weights of a run, and their card; returns the path of the weights."""
    folder = RunFolder(run.folder)
    checkpoint = load_checkpoint(folder.best)
    save_checkpoint(folder.weights, run.model, position=checkpoint.position, metrics=checkpoint.metrics, half=True)
    name = Path(config.data).name
    data, licence = f"the training split of {name}", OWN_LICENCE
    if not config.data:
        name, licence = "rendered scenes", LICENCE
        data = (
            f"{config.epochs * config.epoch_steps * config.batch_size:,} scenes of {config.image_size} pixels, "
            f"rendered by detseg.synthetic.scenes: {len(SHAPE_FAMILIES)} shape families, {len(TEXTURES)} textures, no "
            "photographs"
        )
    launcher = ["torchrun", "--nproc-per-node", str(world), "-m"] if world > 1 else ["python", "-m"]
    write_card(
        folder.weights,
        title=f"{run.plan.model.model}, pretrained on {name}",
        data=data,
        command=shlex.join([*launcher, "detseg", "pretrain", *to_flags(config, exclude=("output", "resume"))]),
        licence=licence,
        rows=read_rows(folder.metrics_log, checkpoint.position.epoch),
        device=torch.device(run.plan.run.device),
        start=start.origin(),
    )
    return folder.weights
