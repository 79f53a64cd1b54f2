"""Choose the number of epochs for a budget of minutes, from times measured with the model and data of the run."""

from __future__ import annotations

import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import Position
from detseg.checkpoints.manager import CheckpointInterval, CheckpointManager
from detseg.datasets.tile_samples import view_counts
from detseg.engine.ema import Ema
from detseg.engine.evaluate import evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.engine.train import EpochTotals, train_one_epoch
from detseg.models import Model
from detseg.options.plan import Plan
from detseg.preprocess import Preprocessing
from detseg.runtime.signals import StopRequest
from detseg.short_text import duration
from detseg.training.loaders import DataModule
from detseg.training.make_plan import with_epochs
from detseg.training.optimizer import new_optimizer
from detseg.training.time_limit import EpochSeconds, TimeLimit

BATCHES = 4
"""Batches of a timed pass, spread over the data, because images differ in size and number of objects."""

PASSES = 3
"""Timed passes, of which the median is used, after one warm-up pass: oneDNN and cuDNN prepare for each batch shape."""

AFTER_SECONDS = 4.0
"""Seconds to load the best weights and to draw the curves after the last epoch."""

RESULT_IMAGES = 16
"""Largest number of validation images that are predicted and drawn at the end, in ``DRAWING`` times the time of their
evaluation."""
DRAWING = 1.5

SHARE = 0.01
"""Share of the budget: no further pass is started when the timed ones have taken this long."""


@dataclass(frozen=True)
class Budget:
    """What keeps a run within its minutes: its limit, and the seconds of an epoch, measured before the training."""

    limit: TimeLimit
    seconds: EpochSeconds


def fit_to_minutes(
    plan: Plan,
    model: Model,
    train: AnnotationTable,
    val: AnnotationTable,
    test_images: int,
    data_module: DataModule,
    started: float,
    stop_request: StopRequest | None = None,
) -> tuple[Plan, Budget, list[str]]:
    """Choose ``epochs`` for ``minutes``, and the options that follow from them.

    The minutes are those of the whole run: reading the data, features that are computed once, these measurements, all
    epochs with their evaluations and checkpoints, the evaluation of the test split, and the result images.

    Args:
        test_images: number of images of the test split.
        started: when the run began, in seconds of :func:`time.monotonic`.
        stop_request: honoured while it measures.

    Returns:
        The final plan, its budget, and lines that state what was chosen.

    Raises:
        DataError: not even one epoch fits; the message contains the least number of minutes.
    """
    processes = data_module.processes
    measured = epoch_seconds(plan, model, train, val, data_module, stop_request or StopRequest())
    # each process measures its own time
    same = json.loads(processes.broadcast_bytes(json.dumps([started, *measured]).encode()))
    seconds, world = EpochSeconds(*same[1:]), processes.world
    shared = EpochSeconds(seconds.training / world, seconds.evaluation / world, seconds.saving)
    per_image = seconds.evaluation / max(len(val), 1)
    limit = TimeLimit(
        60 * _minutes(plan),
        same[0],
        after=(test_images + DRAWING * min(RESULT_IMAGES, len(val))) * per_image + AFTER_SECONDS,
        eval_epochs=plan.training.eval_epochs,
    )
    plan, lines = choose_epochs(plan, shared, limit, len(train), world)
    return plan, Budget(limit, shared), lines


def choose_epochs(
    plan: Plan, seconds: EpochSeconds, limit: TimeLimit, images: int, world: int = 1
) -> tuple[Plan, list[str]]:
    """Choose ``epochs`` for a time limit, and the options that follow from them.

    Args:
        seconds: of an epoch of all processes together.
        images: number of training images.
        world: number of training processes.

    Raises:
        DataError: not even one epoch fits.
    """
    training, evaluation, saving = seconds
    most = plan.most_epochs
    epochs = limit.epochs_that_fit(seconds, most)
    measured = f"measured: training {training:.2g} s, evaluation {evaluation:.2g} s, saving {saving:.2g} s"
    before, plan = plan.lines(), with_epochs(plan, epochs, measured, images, world)
    lines = [f"chosen for {_minutes(plan):g} minutes:", *(line for line in plan.lines() if line not in before)]
    if most is not None and epochs < most:
        needed = duration(limit.seconds - limit.left() + limit.cost(0, most, seconds))
        lines.append(
            f"  {most} epochs would take about {needed} on this machine: the results of {epochs} are worse; train all "
            f"with --epochs {most}"
        )
    return plan, lines


def epoch_seconds(
    plan: Plan,
    model: Model,
    train: AnnotationTable,
    val: AnnotationTable,
    data_module: DataModule,
    stop_request: StopRequest,
) -> EpochSeconds:
    """Measure the time of an epoch with a few batches of training and evaluation, including loading, and a checkpoint.

    The checkpoint is written to the run folder and removed: with cached features it may take longer than the training.
    A copy of the model is trained, so weights, norm statistics and the global random generators do not change. A
    trained detector has other detections, so its evaluation may later be faster or slower.
    """
    batch, seed = plan.training.batch_size, plan.run.seed
    reporter = data_module.reporter.described("measuring the speed")
    device = next(model.parameters()).device
    model = copy.deepcopy(model)
    # the start value of warm-up: a higher rate could make the copy diverge
    clip_norm = plan.training.clip_norm or None
    optimizer = new_optimizer(model, plan.optimizer, lr=1e-3 * plan.optimizer.lr)
    few_train, few_val = (_few_batches(table, batch, model.preprocessing) for table in (train, val))
    train_loader, val_loader = (
        data_module.train_loader(few_train, single_process=True),
        data_module.val_loader(few_val, single_process=True),
    )
    evaluator = make_evaluator(few_val, data_module.task, model.preprocessing)
    train_share, val_share = len(few_train) / len(train), len(few_val) / max(len(val), 1)
    if plan.tile_samples:
        train_share = len(train_loader.dataset) / plan.tile_samples
        val_share = len(val_loader.dataset) / max(int(view_counts(val, model.preprocessing).sum()), 1)

    def train_pass() -> None:
        # not epoch 0, in which the loop has its own warm-up
        train_one_epoch(
            model,
            optimizer,
            train_loader,
            device,
            1,
            clip_norm=clip_norm,
            seed=seed,
            stop_request=stop_request,
            reporter=reporter,
        )

    def evaluation_pass() -> None:
        if plan.training.val_loss:
            validation_loss(model, val_loader, device, seed=seed, stop_request=stop_request, reporter=reporter)
        evaluator.reset()
        evaluate(model, val_loader, device, evaluator=evaluator, stop_request=stop_request, reporter=reporter)

    time_limit = SHARE * 60 * _minutes(plan)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        training = _seconds(train_pass, time_limit) / train_share
        evaluation = _seconds(evaluation_pass, time_limit) / val_share if len(val) else 0.0
    if data_module.folder is None or not data_module.processes.is_main:
        return EpochSeconds(training, evaluation, 0.0)
    data_module.folder.mkdir(parents=True, exist_ok=True)
    ema = None if plan.training.ema is None else Ema(model, plan.training.ema)
    with tempfile.TemporaryDirectory(dir=data_module.folder) as folder:
        manager = CheckpointManager(
            Path(folder), model, optimizer, every=CheckpointInterval(), keep=plan.checkpoints.keep_checkpoints, ema=ema,
            reporter=reporter,
        )  # fmt: skip
        saving = _seconds(lambda: manager.save(Position(), [EpochTotals()]), time_limit)
        return EpochSeconds(training, evaluation, saving)


def _minutes(plan: Plan) -> float:
    """Return the budget of a plan whose epochs are measured; infinite without one."""
    return math.inf if plan.training.minutes is None else plan.training.minutes


def _few_batches(table: AnnotationTable, batch_size: int, preprocessing: Preprocessing) -> AnnotationTable:
    """Return a few batches of ``table``, or all of it if it is smaller."""
    views = view_counts(table, preprocessing).mean() if len(table) else 1.0  # of an image: its tiles
    count = min(len(table), math.ceil(BATCHES * batch_size / views))
    return table.subset(np.linspace(0, len(table) - 1, count).round().astype(np.int64))


def _seconds(run: Callable[[], None], time_limit: float) -> float:
    """Return the median wall seconds of ``run`` after a warm-up run: at least one run, more within ``time_limit``."""
    run()
    times: list[float] = []
    while len(times) < PASSES and sum(times) <= time_limit:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
