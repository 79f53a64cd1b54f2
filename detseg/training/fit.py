"""Train a model: from labelled images to a fine-tuned, evaluated model. The code reads top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic

import torch

from detseg.annotations.from_options import Splits, describe_splits, describe_table, load_table
from detseg.checkpoints.checkpoint import Checkpoint, load, load_checkpoint
from detseg.datasets.loader import check_world
from detseg.doctor import check_lines
from detseg.engine.evaluate import Metrics, evaluate
from detseg.errors import DataError
from detseg.inference.predictor import pick_device
from detseg.models import Model
from detseg.models.create import freeze_as, with_backbone
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.reports.tensorboard import check_installed
from detseg.runtime.folder_lock import FolderLock
from detseg.runtime.machine import MachineFacts
from detseg.runtime.processes import joined_processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.signals import catching_signals
from detseg.short_text import duration
from detseg.training.claimed_folder import claimed_folder
from detseg.training.disk_space import check_space
from detseg.training.failed_write import stating_what_is_kept
from detseg.training.finished_run import FinishedRun, next_lines, saved_metrics
from detseg.training.input_size import too_small_lines
from detseg.training.loss_weights import parse_loss_weights
from detseg.training.make_plan import make_plan, named_weights, with_epochs
from detseg.training.moved_data import check_places, resumed_splits
from detseg.training.new_model import new_model, with_batch_size
from detseg.training.phases import phases_of
from detseg.training.remaining_work import remaining_work
from detseg.training.resume import (
    newest_checkpoint,
    resumed_config,
    resumed_line,
    resumed_model,
    saved_epochs,
    threads_line,
    with_absolute_paths,
    write_plan,
)
from detseg.training.run_data import RunContext, RunData, TableData
from detseg.training.run_details import report_network, with_tensorboard
from detseg.training.run_results import metrics_text, write_results
from detseg.training.run_splits import run_splits
from detseg.training.step_time import seconds_per_step
from detseg.training.tile_choice import tile_lines
from detseg.training.time_limit import Cut
from detseg.training.trainer import Trainer
from detseg.training.training_metrics import TrainingMetrics


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: contains best.safetensors, last.safetensors, config.toml, split.json, metrics.jsonl, metrics.json and
            images.
        plan: all options with their decided values.
        metrics: of the best weights on the validation split; without one, the training losses of their epoch.
        trained_model: the model of this process, if it trained one.
    """

    folder: Path
    plan: Plan
    metrics: Metrics
    trained_model: torch.nn.Module | None = None

    @cached_property
    def model(self) -> torch.nn.Module:
        """The model with the best weights, in eval mode; loaded on first use if the run was finished before."""
        return self.trained_model or load(self.folder).to(self.plan.run.device).eval()

    @property
    def config(self) -> TrainConfig:
        """The decided values as options."""
        return self.plan.options()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.plan.model.model}, {self.plan.model.task}; {self.metrics!r})"


@contextmanager
def run_context(device: torch.device, reporter: Reporter | None, started: float | None = None) -> Iterator[RunContext]:
    """Join the processes of ``torchrun`` and catch SIGTERM and SIGINT for the block."""
    started = monotonic() if started is None else started
    with catching_signals() as stop_request, joined_processes(device) as processes:
        used = (reporter or terminal()) if processes.is_main else silent()
        yield RunContext(processes, stop_request, used, started)


def fit(
    config: TrainConfig,
    *,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
    started: float | None = None,
) -> Run:
    """Train, evaluate after every epoch and keep the best weights; report the chosen options and the results.

    SIGTERM and SIGINT request a checkpoint and an exit. A run that is resumed (``resume``) ends with the same bits as
    one that was never stopped. Of a run that is finished, only the metrics are read.

    Args:
        weights: those of ``config.weights`` if the caller has opened them. Their memory is freed before training.
        reporter: gets all events of the run, in the main process only; the terminal by default.
        started: when the run began, in seconds of :func:`time.monotonic`, for ``minutes``; None for now.

    Raises:
        DataError: data or options that cannot work; the message states which and what to do.
        NotFinite: a loss or gradient is not finite; the batch is saved in the run folder.
        Interrupted: an exit was requested; a checkpoint was written.
    """
    device = pick_device(config.device)
    if config.tensorboard:
        check_installed()
    with run_context(device, reporter, started) as context:
        options = with_backbone(with_absolute_paths(config))
        if options.resume:
            folder = Path(options.resume)
            requested, options = options, resumed_config(options, folder, context.reporter)
            finished = FinishedRun.read(folder, context.processes)
            cut = _saved_cut(folder, options.epochs)
            if finished and finished.reaches(cut.epochs if cut else options.epochs):
                return _finished(folder, replace(options, device=str(device)), finished, context)
            check_places(options, folder, requested)
        table = load_table(options)
        splits, leaks = resumed_splits(options, table) if options.resume else run_splits(options, table)
        weights = weights or named_weights(options)
        options = with_batch_size(options, table, splits["train"], device, context, weights)
        machine, world = MachineFacts.of(device), context.processes.world
        plan = make_plan(options, table, splits["train"], machine, world, weights=weights)
        small = [] if options.resume else too_small_lines(plan, splits["train"], weights)
        problems = [] if options.resume or not options.check else check_lines(table)
        small = [*tile_lines(plan, splits["train"]), *small]
        intro = [*describe_table(table), *describe_splits(splits, table, options), *leaks, *small, *problems]
        return fit_tables(plan, splits, weights=weights, context=context, intro=intro)


def _saved_cut(folder: Path, epochs: int | None) -> Cut | None:
    """Return the cut of a run that is resumed; None if it is to train for another number of epochs than planned."""
    return None if epochs is not None and epochs != saved_epochs(folder) else Cut.read(folder)


def fit_tables(
    plan: Plan,
    splits: Splits,
    model: Model | None = None,
    *,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
    context: RunContext | None = None,
    intro: Sequence[str] = (),
) -> Run:
    """Train by a plan on tables that are in memory; otherwise as :func:`fit`.

    Args:
        plan: of :func:`~detseg.training.make_plan.make_plan`.
        splits: tables "train" and optionally "val" and "test".
        model: to train; None for a new one by the plan. A run that is resumed has that of its checkpoint.
        weights: the starting weights of the plan if they are open already.
        context: that of the caller, which then has the reporter.
        intro: lines about the data, reported when the run folder is known to be new.
    """
    return fit_data(plan, TableData(splits), model, weights=weights, reporter=reporter, context=context, intro=intro)


def fit_data(
    plan: Plan,
    data: RunData,
    model: Model | None = None,
    *,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
    context: RunContext | None = None,
    intro: Sequence[str] = (),
) -> Run:
    """Train on images that need not be tables; without a ``model``, they must be. Otherwise as :func:`fit_tables`."""
    device = torch.device(plan.run.device)
    if context is None:
        with run_context(device, reporter) as context:
            return fit_data(plan, data, model, weights=weights, context=context, intro=intro)
    check_world(plan.tile_samples or data.train_images, plan.training.batch_size, context.processes.world)
    with claimed_folder(plan, context.processes) as (folder, lock), stating_what_is_kept(folder):
        reasons = plan.lines()
        context.reporter.lines(intro)
        first = "chosen automatically:" if reasons else "no option was chosen automatically"
        context.reporter.plan([first, *reasons], plan.values())
        checkpoint = _checkpoint(plan, data, context)
        if checkpoint:
            context.reporter.lines(threads_line(checkpoint, plan.run.device))
            model = resumed_model(checkpoint, plan)
        elif model is None:
            model = new_model(data.splits["train"], plan, weights, context.reporter)
        if weights:
            weights.release()
        _check_space(plan, data, model, folder, context)
        first_epoch = checkpoint.position.epoch + 1 if checkpoint else 1
        with with_tensorboard(plan, folder, first_epoch, context) as context:
            with context.reporter.whole_run(may_stop_early=plan.training.patience > 0):
                plan, trainer = _train(plan, data, model.to(device), checkpoint, folder, lock, context)
                best = _finish(plan, trainer, context)
            if context.processes.is_main:
                _report_end(plan, trainer, context)
        return Run(folder, plan, best, trainer.model)


def _checkpoint(plan: Plan, data: RunData, context: RunContext) -> Checkpoint | None:
    """Return the checkpoint to resume from; None for a new run, or if there is none yet.

    The main process reads the images for the fingerprint now, before the speed of the run is measured.
    """
    processes = context.processes
    fingerprint = data.fingerprint if processes.is_main else None
    if plan.run.resume is None:
        return None
    if not processes.is_main:
        processes.wait()  # the main process moves corrupt checkpoints aside
    checkpoint = newest_checkpoint(Path(plan.run.resume), fingerprint, data.splits, context.reporter)
    if processes.is_main:
        processes.wait()
    return checkpoint


def _check_space(plan: Plan, data: RunData, model: Model, folder: Path, context: RunContext) -> None:
    """Report the disk space that the run needs; DataError in all processes if there is less."""
    line, problem = "", ""
    if context.processes.is_main:
        try:
            line = check_space(plan, model, data, folder)
        except DataError as error:
            problem = str(error)
    problem = context.processes.broadcast_bytes(problem.encode()).decode()
    if problem:
        raise DataError(problem)
    context.reporter.lines([line] if line else [])


def _train(
    plan: Plan,
    data: RunData,
    model: Model,
    checkpoint: Checkpoint | None,
    folder: Path,
    lock: FolderLock | None,
    context: RunContext,
) -> tuple[Plan, Trainer]:
    """Train all phases. Returns the plan, with measured epochs, and the last trainer."""
    processes, reporter = context.processes, context.reporter
    epoch = checkpoint.position.epoch if checkpoint else 0
    done = sum(epoch >= phase.epochs for phase in plan.phases[:-1])
    has_more_epochs = plan.run.resume is not None and plan.training.epochs > saved_epochs(folder)
    cut = _saved_cut(folder, plan.training.epochs) if plan.run.resume else None
    if cut is not None and epoch >= cut.after:
        images, world = data.train_images, processes.world
        plan, cut = with_epochs(plan, cut.epochs, f"cut after epoch {cut.after}", images, world), None
    trainer: Trainer | None = None
    for number in range(done, len(plan.phases)):
        phase = plan.phases[number]
        if phase.line:
            reporter.phase(phase.line, phase.first_epoch + 1, phase.epochs)
        freeze_as(model, phase.freeze, phase.trainable_layers, norm_eval=plan.freezing.norm_eval)
        parse_loss_weights(plan.training.loss_weights, model.loss_names())  # an error before anything is computed
        measured = plan.measure_epochs
        plan, loaders = data.loaders(plan, phase, model, folder, context)
        trainer = Trainer(
            plan, plan.phases[number], folder, model, loaders, data, checkpoint=None if trainer else checkpoint,
            processes=processes, previous=trainer, cut=cut, lock=lock, reporter=reporter,
        )  # fmt: skip
        if number == done and reporter.details:
            report_network(model, reporter)
        if number == done and plan.run.resume:
            reporter.line(resumed_line(folder, trainer.position))
        if has_more_epochs and trainer.is_stopped_early:
            trainer.restart_patience()
        if number == done and processes.is_main:
            RunFolder(folder).finished.unlink(missing_ok=True)
            if has_more_epochs:
                RunFolder(folder).cut.unlink(missing_ok=True)  # it was of the number of epochs before
            write_plan(plan, folder)
            if not checkpoint:
                data.write(plan, folder)
        if not measured:
            reporter.lines(time_estimate(trainer))
        _expect_work(trainer)
        trainer.run(context.stop_request)
    assert trainer is not None  # a plan has at least one phase
    return trainer.plan, trainer


def _expect_work(trainer: Trainer) -> None:
    """Tell the progress of the run how much is left of it."""
    run, plan, test = trainer.reporter.run, trainer.plan, trainer.data.splits.get("test", ())
    if run is not None:
        val = 0 if trainer.loaders.val is None else len(trainer.loaders.val)
        test_batches = -(-len(test) // plan.training.batch_size)
        run.expect(remaining_work(plan, trainer.position, len(trainer.loaders.train), val, test_batches))


def _finish(plan: Plan, trainer: Trainer, context: RunContext) -> Metrics:
    """Load the best weights, evaluate them, and write the results to the run folder; returns the metrics."""
    folder, model, processes, reporter = trainer.folder, trainer.model, context.processes, context.reporter
    rows, data, best_epoch = trainer.rows, trainer.data, trainer.position.best_epoch
    if processes.is_main:
        model.load_state_dict(load_checkpoint(RunFolder(folder).best).weights)
    processes.broadcast_(list(model.state_dict().values()))  # other machines may have no access to the folder
    model.eval()
    best = trainer.best or _best_metrics(trainer, context)
    criterion = "validation split, best epoch" if data.has_val else "training split, epoch of the lowest loss"
    text = metrics_text(f"{criterion} {best_epoch + 1} of {len(rows)}", best, plan)
    reporter.metrics("val" if data.has_val else "train", best.to_dict(), text)
    if processes.is_main:
        write_results(plan, trainer, best, reporter)
    processes.wait()
    return best


def _best_metrics(trainer: Trainer, context: RunContext) -> Metrics:
    """Return the metrics of the best weights when they are from before a resume."""
    evaluator, best_epoch = trainer.evaluator, trainer.position.best_epoch
    if evaluator is None:
        return TrainingMetrics.from_row(next(row for row in trainer.rows if row["epoch"] == best_epoch + 1))
    evaluator.reset()
    metrics = evaluate(
        trainer.model, trainer.loaders.val, trainer.device, evaluator=evaluator, processes=context.processes,
        reporter=context.reporter,
    )  # fmt: skip
    trainer.best_predictions = evaluator.predictions
    return metrics


def _report_end(plan: Plan, trainer: Trainer, context: RunContext) -> None:
    """Report the time that the run took, its folder, and the commands that use it."""
    folder, data = trainer.folder, trainer.data
    after = next_lines(folder, has_data=bool(data.splits), split="val" if data.has_val else "")
    first = f"finished in {duration(monotonic() - context.started)}; wrote {folder}"
    context.reporter.done(folder, "\n".join([first, *after]))


def _finished(folder: Path, options: TrainConfig, finished: FinishedRun, context: RunContext) -> Run:
    """Report that a run is finished, and how to train on."""
    metrics, plan = saved_metrics(folder), Plan.of(options, {}, {})
    context.reporter.done(folder, "\n".join(finished.lines(folder, metrics.lines()[0])))
    return Run(folder, replace(plan, phases=phases_of(plan)), metrics)


def time_estimate(trainer: Trainer) -> list[str]:
    """Estimate the training time from two timed steps that do not change the model: one line, or none for no epochs."""
    epochs, loader = trainer.epochs - trainer.position.epoch, trainer.loaders.train
    if epochs <= 0:
        return []
    seconds = seconds_per_step(trainer.model, loader, trainer.device, reporter=trainer.reporter)
    time_text = duration(seconds * len(loader) * epochs)
    eval_epochs = trainer.plan.training.eval_epochs
    interval = "after each epoch" if eval_epochs == 1 else f"every {eval_epochs} epochs"
    evaluation = f", plus evaluation {interval}" if trainer.data.has_val else ""
    return [f"{epochs} epochs of {len(loader)} steps: about {time_text} of training{evaluation}"]
