"""How many epochs fit into a budget of minutes, measured on the model and the data themselves."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import Position
from detseg.checkpoints.manager import CheckpointInterval, CheckpointManager
from detseg.engine.ema import Ema
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.engine.train import EpochTotals, train_one_epoch
from detseg.models import Model
from detseg.options import TrainConfig
from detseg.runtime.processes import Processes
from detseg.training.choices import follow_epochs
from detseg.training.loaders import DataModule
from detseg.training.optimizer import new_optimizer

BATCHES = 4
"""Batches of a timed pass, spread over the data, whose images differ in size and in objects."""

PASSES = 3
"""Timed passes of which the median counts, after one to warm up: oneDNN and cuDNN plan for each new size of a batch."""

SHARE = 0.05
"""Of the budget: no further pass is begun once the timed ones took so much."""


class EpochSeconds(NamedTuple):
    """Wall seconds of an epoch's training, of an evaluation, and of the checkpoint that ends the epoch."""

    learning: float
    scoring: float
    saving: float


def fit_to_minutes(
    config: TrainConfig,
    model: Model,
    train: AnnotationTable,
    val: AnnotationTable,
    data_module: DataModule,
    processes: Processes | None = None,
) -> tuple[TrainConfig, list[str]]:
    """Fill ``epochs`` by ``minutes``, and what follows from them. Returns the full config and lines for the terminal.

    The minutes are those of the epochs with their checkpoints: measuring, features that are computed once, and what a
    run does once at its end are not in them.
    """
    assert config.minutes is not None
    processes = processes or Processes()
    learning, scoring, saving = epoch_seconds(config, model, train, val, data_module)
    learning /= processes.world
    scoring /= processes.world * (config.eval_epochs or 1)
    budget, epoch = 60 * config.minutes, learning + scoring + saving
    epochs = int(processes.broadcast_bytes(str(max(1, int(budget / epoch))).encode()))
    config, more = follow_epochs(replace(config, epochs=epochs), len(train), processes.world)
    took = f"an epoch takes {epoch:.2g} s, {learning:.2g} to train, {scoring:.2g} to evaluate and {saving:.2g} to save"
    lines = [f"picked for {config.minutes:g} minutes:", f"  epochs {epochs} (measured: {took})", *more]
    if epoch > budget:
        lines.append(f"warning: one epoch takes {epoch / 60:.2g} minutes, more than --minutes; it is the least")
    return config, lines


def epoch_seconds(
    config: TrainConfig, model: Model, train: AnnotationTable, val: AnnotationTable, data_module: DataModule
) -> EpochSeconds:
    """What an epoch takes, from a few batches of training and evaluation, with loading, and from a checkpoint.

    The checkpoint is written where the run's will be, and removed: with features of frozen parts at hand it may take
    longer than the training. A copy of the model learns, so weights and norm statistics stay as they are, and so do the
    global generators. A detector finds other things once it has learned, so its evaluation may later take more or less.
    """
    assert config.minutes is not None
    assert config.batch_size is not None
    batch, seed = config.batch_size, config.seed
    device = next(model.parameters()).device
    model = copy.deepcopy(model)
    # the factor is where warm-up begins: the copy must not learn so fast that it breaks
    optimizer = new_optimizer(model, config, lr_factor=1e-3)
    few_train, few_val = _few(train, batch), _few(val, batch)
    train_loader, val_loader = (
        data_module.train_loader(few_train, alone=True),
        data_module.val_loader(few_val, alone=True),
    )
    evaluator = make_evaluator(few_val, data_module.task, model.preprocessing)

    def learn() -> None:
        # not epoch 0, in which the loop would warm up by itself
        train_one_epoch(model, optimizer, train_loader, device, 1, clip_norm=config.clip_norm or None, seed=seed)

    def score() -> None:
        if config.val_loss:
            validation_loss(model, val_loader, device, seed=seed)
        evaluator.reset()
        evaluate(model, val_loader, device, evaluator=evaluator)

    allowed = SHARE * 60 * config.minutes
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        learning = _seconds(learn, allowed) * len(train) / len(few_train)
        scoring = _seconds(score, allowed) * len(val) / len(few_val)
    if data_module.folder is None or not data_module.processes.is_main:
        return EpochSeconds(learning, scoring, 0.0)
    data_module.folder.mkdir(parents=True, exist_ok=True)
    ema = None if config.ema is None else Ema(model, config.ema)
    with tempfile.TemporaryDirectory(dir=data_module.folder) as place:
        manager = CheckpointManager(
            Path(place), model, optimizer, every=CheckpointInterval(), keep=config.keep_checkpoints, ema=ema
        )
        return EpochSeconds(learning, scoring, _seconds(lambda: manager.save(Position(), [EpochTotals()]), allowed))


def _few(table: AnnotationTable, batch_size: int) -> AnnotationTable:
    """A few batches of ``table``, all of it if there are not more."""
    count = min(len(table), BATCHES * batch_size)
    return table.subset(np.linspace(0, len(table) - 1, count).round().astype(np.int64))


def _seconds(run: Callable[[], None], allowed: float) -> float:
    """Median wall seconds of ``run`` after one to warm up; one timed run at least, more within ``allowed`` seconds."""
    run()
    times: list[float] = []
    while len(times) < PASSES and sum(times) <= allowed:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
