"""Pretrain weights on scenes rendered during training, and write them as a small file."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

import torch

from detseg.checkpoints.checkpoint import Checkpoint, Position, restore, save_checkpoint
from detseg.datasets import data_loader
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.engine.evaluate import Metrics, evaluate
from detseg.engine.evaluator import evaluator_for_dataset
from detseg.engine.optim import build_optimizer
from detseg.engine.schedule import Schedule
from detseg.engine.train import train_one_epoch
from detseg.models import Model, ModelDescription, build_model, describe, load_weights
from detseg.models.weights.starting_weights import Origin, StartingWeights
from detseg.options import PretrainConfig
from detseg.options_text import to_flags, to_toml
from detseg.runtime.files import write_text
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.seeds import derive_seed
from detseg.synthetic.scenes import SHAPE_FAMILIES, TEXTURES
from detseg.training.metrics_log import line, read_rows, row, write_rows
from detseg.training.weights_card import LICENCE, write_card

TRAIN, VAL = 0, 1  # scenes of derive_seed(seed, TRAIN, rank) and derive_seed(seed, VAL)
ANCHOR_SIZES = ((12,), (24,), (48,), (96,), (192,))
"""One octave apart, from the smallest shapes of a scene: images of 160 to 500 pixels contain smaller objects than
torchvision's 800."""
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.05
CLIP_NORM = 10.0


def write_scenes_card(
    config: PretrainConfig,
    folder: Path,
    device: torch.device,
    processes: Processes,
    start: Origin,
    reporter: Reporter | None = None,
) -> None:
    launcher = ["python", "-m"]
    if processes.world > 1:
        launcher = ["torchrun", "--nproc-per-node", str(processes.world), "-m"]
    card = write_card(
        RunFolder(folder).weights,
        title=f"{config.model}, pretrained on rendered scenes",
        data=f"{config.epochs * config.epoch_steps * config.batch_size:,} scenes of {config.image_size} pixels, "
        f"rendered by detseg.synthetic.scenes: {len(SHAPE_FAMILIES)} shape families, {len(TEXTURES)} textures, no "
        "photographs",
        command=shlex.join([*launcher, "detseg", "pretrain", *to_flags(config, exclude=("output", "resume"))]),
        licence=LICENCE,
        rows=read_rows(RunFolder(folder).metrics_log, config.epochs),
        device=device,
        start=start,
    )
    (reporter or terminal()).done(folder, f"wrote {RunFolder(folder).weights} and {card.name}")


def new_pretraining_model(
    config: PretrainConfig,
    checkpoint: Checkpoint | None,
    weights: StartingWeights,
    device: torch.device,
    reporter: Reporter | None = None,
) -> Model:
    torch.manual_seed(derive_seed(config.seed))
    if checkpoint:
        description = ModelDescription.from_dict(checkpoint.model)
    else:
        description = describe(
            config.model,
            RenderedScenes(0, (1, 1)).class_map,
            weights=weights,
            rois_per_image=config.rois_per_image,
            mask_rois_per_image=config.mask_rois_per_image,
            anchor_sizes=ANCHOR_SIZES if config.weights in ("none", "imagenet") else None,
        )
    model = build_model(description)
    if checkpoint is None:
        report = load_weights(model, weights)
        weights.release()
        (reporter or terminal()).lines(report.lines())
    model.to(device)
    return model.to(memory_format=torch.channels_last)


def train_on_scenes(
    config: PretrainConfig,
    folder: Path,
    model: Model,
    checkpoint: Checkpoint | None,
    processes: Processes,
    reporter: Reporter | None = None,
) -> None:
    reporter = reporter or (terminal() if processes.is_main else silent())
    device = next(model.parameters()).device
    size_hw = (config.image_size, config.image_size)
    batch, rank = config.batch_size // processes.world, processes.rank
    train_set = RenderedScenes(config.epoch_steps * batch, size_hw, seed=derive_seed(config.seed, TRAIN, rank))
    val_set = RenderedScenes(config.val_scenes, size_hw, seed=derive_seed(config.seed, VAL))
    train_loader = data_loader(train_set, batch, workers=config.workers)
    val_loader = data_loader(val_set, batch)
    optimizer = build_optimizer(model, name="adamw", lr=config.lr, weight_decay=WEIGHT_DECAY)
    position = Position()
    if checkpoint:
        restore(checkpoint, model, optimizer)
        position = checkpoint.position
    elif processes.is_main:
        write_text(RunFolder(folder).config, to_toml(config))
    total = config.epochs * config.epoch_steps
    schedule = Schedule("cosine", total_steps=total, warmup_steps=min(WARMUP_STEPS, total // 10))
    scheduler = schedule.attach(optimizer, position.step)
    shared_model = processes.share(model)
    rows = read_rows(RunFolder(folder).metrics_log, position.epoch)
    evaluator = (
        evaluator_for_dataset(val_set) if processes.is_main else None
    )  # renders every scene once for the ground truth
    for epoch in range(position.epoch, config.epochs):
        start = time.perf_counter()
        stats = train_one_epoch(
            shared_model,
            optimizer,
            train_loader,
            device,
            epoch,
            scheduler=scheduler,
            clip_norm=CLIP_NORM,
            seed=derive_seed(config.seed, rank),
            reporter=reporter,
        )
        position = replace(position, epoch=epoch + 1, step=position.step + stats.steps)
        last = epoch + 1 == config.epochs
        if evaluator is not None:
            metrics: Metrics | None = None
            if last or (epoch + 1) % config.eval_epochs == 0:
                evaluator.reset()
                metrics = evaluate(model, val_loader, device, evaluator=evaluator, reporter=reporter)
            rows.append(row(epoch, stats, {}, metrics, optimizer, time.perf_counter() - start))
            reporter.epoch(rows[-1], config.epochs, last, line(rows[-1], config.epochs, last), flush=True)
            write_rows(RunFolder(folder).metrics_log, rows)
            save_checkpoint(RunFolder(folder).last, model, optimizer=optimizer, position=position)
            if last:
                assert metrics
                save_checkpoint(
                    RunFolder(folder).weights, model, position=position, metrics=metrics.to_dict(), half=True
                )
        processes.wait()
