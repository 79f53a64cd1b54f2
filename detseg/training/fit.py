"""Train a model: from labelled images to a fine-tuned, evaluated model. The code reads top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from detseg.annotations import AnnotationTable
from detseg.annotations.from_options import Splits, describe_splits, describe_table, load_splits, load_table
from detseg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from detseg.datasets import Dataset
from detseg.datasets.loader import check_world
from detseg.engine.evaluate import Metrics, evaluate
from detseg.errors import DataError
from detseg.inference.evaluation import evaluate_table, write_evaluation
from detseg.inference.predictor import pick_device
from detseg.models import Model
from detseg.models.create import create_model, freeze_as, with_backbone
from detseg.models.weights.class_transfer import class_pairs
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.options.plan import Plan
from detseg.reports.curves import plot_curves
from detseg.runtime.folder_lock import FolderLock
from detseg.runtime.machine import MachineFacts
from detseg.runtime.processes import joined_processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import catching_signals
from detseg.training.batch_size import fitting_batch_size
from detseg.training.claimed_folder import claimed_folder
from detseg.training.loss_weights import parse_loss_weights
from detseg.training.make_plan import make_plan, named_weights
from detseg.training.metrics_log import minutes_of
from detseg.training.plan_checks import LIMITS
from detseg.training.result_images import write_result_images
from detseg.training.resume import (
    newest_checkpoint,
    resumed_config,
    resumed_line,
    resumed_model,
    with_absolute_paths,
    write_plan,
)
from detseg.training.run_data import RunContext, RunData, TableData
from detseg.training.step_time import seconds_per_step
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
        model: with the best weights, in eval mode.
    """

    folder: Path
    plan: Plan
    metrics: Metrics
    model: torch.nn.Module

    @property
    def config(self) -> TrainConfig:
        """The decided values as options."""
        return self.plan.options()

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.plan.model.model}, {self.plan.model.task}; {self.metrics!r})"


@contextmanager
def run_context(device: torch.device, reporter: Reporter | None) -> Iterator[RunContext]:
    """Join the processes of ``torchrun`` and catch SIGTERM and SIGINT for the block."""
    with catching_signals() as stop_request, joined_processes(device) as processes:
        yield RunContext(processes, stop_request, (reporter or terminal()) if processes.is_main else silent())


def fit(config: TrainConfig, *, weights: StartingWeights | None = None, reporter: Reporter | None = None) -> Run:
    """Train, evaluate after every epoch and keep the best weights; report the chosen options and the results.

    SIGTERM and SIGINT request a checkpoint and an exit. A run that is resumed (``resume``) ends with the same bits as
    one that was never stopped.

    Args:
        weights: those of ``config.weights`` if the caller has opened them. Their memory is freed before training.
        reporter: gets all events of the run, in the main process only; the terminal by default.

    Raises:
        DataError: data or options that cannot work; the message states which and what to do.
        NotFinite: a loss or gradient is not finite; the batch is saved in the run folder.
        Interrupted: an exit was requested; a checkpoint was written.
    """
    device = pick_device(config.device)
    with run_context(device, reporter) as context:
        options = with_backbone(with_absolute_paths(config))
        if options.resume:
            options = resumed_config(options, Path(options.resume), context.reporter)
        table = load_table(options)
        splits = load_splits(options, table)
        weights = weights or named_weights(options)
        options = with_batch_size(options, table, splits["train"], device, context, weights)
        machine, world = MachineFacts.of(device), context.processes.world
        plan = make_plan(options, table, splits["train"], machine, world, weights=weights)
        intro = [*describe_table(table), *describe_splits(splits, table, options)]
        return fit_tables(plan, splits, weights=weights, context=context, intro=intro)


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
    check_world(data.train_images, plan.training.batch_size, context.processes.world)
    with claimed_folder(plan, context.processes) as (folder, lock):
        reasons = plan.lines()
        context.reporter.lines(intro)
        first = "chosen automatically:" if reasons else "no option was chosen automatically"
        context.reporter.plan([first, *reasons], plan.values())
        checkpoint = _checkpoint(plan, data, context)
        if checkpoint:
            model = resumed_model(checkpoint, plan)
        elif model is None:
            model = new_model(data.splits["train"], plan, weights, context.reporter)
        if weights:
            weights.release()
        plan, trainer = _train(plan, data, model.to(device), checkpoint, folder, lock, context)
        return _finish(plan, trainer, context)


def _checkpoint(plan: Plan, data: RunData, context: RunContext) -> Checkpoint | None:
    """Return the checkpoint to resume from; None for a new run, or if there is none yet."""
    processes = context.processes
    if plan.run.resume is None:
        return None
    if not processes.is_main:
        processes.wait()  # the main process moves corrupt checkpoints aside
    checkpoint = newest_checkpoint(Path(plan.run.resume), data.fingerprint, context.reporter)
    if processes.is_main:
        processes.wait()
    return checkpoint


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
    trainer: Trainer | None = None
    for number in range(done, len(plan.phases)):
        phase = plan.phases[number]
        if phase.line:
            reporter.phase(phase.line, phase.first_epoch, phase.epochs)
        freeze_as(model, phase.freeze, phase.trainable_layers, norm_eval=plan.freezing.norm_eval)
        parse_loss_weights(plan.training.loss_weights, model.loss_names())  # an error before anything is computed
        measured = plan.measure_epochs
        plan, loaders = data.loaders(plan, phase, model, folder, context)
        trainer = Trainer(
            plan, plan.phases[number], folder, model, loaders, data, checkpoint=None if trainer else checkpoint,
            processes=processes, previous=trainer, lock=lock, reporter=reporter,
        )  # fmt: skip
        if number == done and plan.run.resume:
            reporter.line(resumed_line(folder, trainer.position))
        if number == done and processes.is_main:
            write_plan(plan, folder)
            if not checkpoint:
                data.write(plan, folder)
        if not measured:
            reporter.lines(time_estimate(trainer))
        trainer.run(context.stop_request)
    assert trainer is not None  # a plan has at least one phase
    return plan, trainer


def _finish(plan: Plan, trainer: Trainer, context: RunContext) -> Run:
    """Load the best weights, evaluate them, and write the results to the run folder."""
    folder, model, processes, reporter = trainer.folder, trainer.model, context.processes, context.reporter
    rows, data, best_epoch = trainer.rows, trainer.data, trainer.position.best_epoch
    if plan.training.minutes is not None:
        reporter.line(f"{len(rows)} epochs took {minutes_of(rows):.2f} of {plan.training.minutes:g} minutes")
    if processes.is_main:
        model.load_state_dict(load_checkpoint(RunFolder(folder).best).weights)
    processes.broadcast_(list(model.state_dict().values()))  # other machines may have no access to the folder
    model.eval()
    best = trainer.best or _best_metrics(trainer, context)
    criterion = "validation split, best epoch" if data.has_val else "training split, epoch of the lowest loss"
    text = "\n".join([f"{criterion} {best_epoch}:", *best.lines()])
    reporter.metrics("val" if data.has_val else "train", best.to_dict(), text)
    if processes.is_main:
        _write_results(plan, trainer, best, reporter)
    processes.wait()
    return Run(folder, plan, best, model)


def _best_metrics(trainer: Trainer, context: RunContext) -> Metrics:
    """Return the metrics of the best weights when they are from before a resume."""
    evaluator, best_epoch = trainer.evaluator, trainer.position.best_epoch
    if evaluator is None:
        return TrainingMetrics.from_row(next(row for row in trainer.rows if row["epoch"] == best_epoch))
    evaluator.reset()
    return evaluate(
        trainer.model, trainer.loaders.val, trainer.device, evaluator=evaluator, processes=context.processes,
        reporter=context.reporter,
    )  # fmt: skip


def _write_results(plan: Plan, trainer: Trainer, best: Metrics, reporter: Reporter) -> None:
    """Evaluate the test split, and write curves and result images."""
    folder, model, device, splits = trainer.folder, trainer.model, trainer.device, trainer.data.splits
    if "test" in splits:
        metrics, evaluator = evaluate_table(
            model, splits["test"], device, batch_size=plan.training.batch_size, workers=plan.run.workers,
            reporter=reporter,
        )  # fmt: skip
        write_evaluation(RunFolder(folder).evaluation("test"), metrics, evaluator)
        text = "\n".join(["test split (not used for model selection):", *metrics.lines()])
        reporter.metrics("test", metrics.to_dict(), text)
    if plot_curves(trainer.rows, RunFolder(folder).curves):
        reporter.image(RunFolder(folder).curves)
    else:
        reporter.line("no curves.png: matplotlib is not installed (pip install 'detseg[plot]')")
    if "val" in splits:
        write_result_images(folder, model, splits["val"], device, best, reporter)
    reporter.done(folder, f"wrote {folder}; predict with: python tools/predict.py {folder} IMAGES")


def with_batch_size(
    options: TrainConfig,
    table: AnnotationTable,
    train: AnnotationTable,
    device: torch.device,
    context: RunContext,
    weights: StartingWeights | None = None,
) -> TrainConfig:
    """Replace ``--batch-size 0`` by the largest batch size that fits in the memory of this GPU."""
    if options.batch_size != 0:
        return options
    if device.type != "cuda":
        raise DataError("--batch-size 0 measures the memory of a GPU, but there is none; give a number")
    draft = make_plan(replace(options, batch_size=1), table, train, MachineFacts.of(device), weights=weights)
    model = new_model(table, draft, weights, silent()).to(device)
    dataset = Dataset(train, model.preprocessing, task=draft.model.task)
    size, memory_use = fitting_batch_size(model, dataset, device)
    size = int(context.processes.broadcast_bytes(str(size).encode()))
    context.reporter.line(f"batch size {size}: {memory_use}")
    return replace(options, batch_size=size)


def new_model(
    table: AnnotationTable,
    plan: Plan,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Create the model of a new run; report which weights were loaded and which parts are trainable.

    Args:
        weights: those of the plan if they are open already.
    """
    torch.manual_seed(derive_seed(plan.run.seed))  # random initialization depends on the seed of the run
    planned, reporter = plan.model, reporter or terminal()
    created = create_model(
        planned.model,
        table.class_map,
        weights=weights or planned.weights,
        freeze_level=plan.freezing.freeze,
        trainable_layers=plan.freezing.trainable_layers,
        norm_eval=plan.freezing.norm_eval,
        image_size=planned.image_size,
        **{name: value for name in LIMITS if (value := getattr(planned, name)) is not None},
        anchor_sizes=planned.anchor_sizes,
        keypoints=table.keypoint_schema if planned.task == "keypoints" else None,
        label_fields=table.label_fields,
        class_transfer=class_pairs(planned.class_transfer, table.class_map.names),
        value_range=planned.value_range,
    )
    reporter.lines(created.lines)
    if planned.weights == "none":
        reporter.line(
            "training from scratch: no pretrained weights, so expect low accuracy from few images and few epochs"
        )
    return created.model


def time_estimate(trainer: Trainer) -> list[str]:
    """Estimate the training time from two timed steps that do not change the model: one line, or none for no epochs."""
    epochs, loader = trainer.epochs - trainer.position.epoch, trainer.loaders.train
    if epochs <= 0:
        return []
    seconds = seconds_per_step(trainer.model, loader, trainer.device) * len(loader) * epochs
    minutes = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    eval_epochs = trainer.plan.training.eval_epochs
    interval = "after each epoch" if eval_epochs == 1 else f"every {eval_epochs} epochs"
    evaluation = f", plus evaluation {interval}" if trainer.data.has_val else ""
    return [f"{epochs} epochs of {len(loader)} steps: about {minutes} of training{evaluation}"]
