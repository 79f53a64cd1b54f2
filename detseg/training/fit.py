"""Train a model: from labelled images to a fine-tuned, evaluated model. The code reads top to bottom."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable, write_split
from detseg.annotations.fingerprint import fingerprint
from detseg.annotations.from_options import Splits, describe_splits, describe_table, load_splits, load_table
from detseg.checkpoints.checkpoint import Position, load_checkpoint
from detseg.datasets import Dataset
from detseg.datasets.loader import check_world
from detseg.engine.evaluate import Metrics, evaluate
from detseg.engine.evaluator import make_evaluator
from detseg.errors import DataError
from detseg.inference.evaluation import evaluate_table, write_evaluation
from detseg.inference.predictor import pick_device
from detseg.models import Model
from detseg.models.create import create_model, freeze_as, with_backbone
from detseg.models.weights.class_transfer import class_pairs
from detseg.models.weights.starting_weights import StartingWeights
from detseg.options import TrainConfig
from detseg.reports.curves import plot_curves
from detseg.runtime.folder_lock import FolderLock
from detseg.runtime.machine import MachineFacts
from detseg.runtime.processes import Processes, joined_processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import StopRequest, catching_signals
from detseg.training.batch_size import fitting_batch_size
from detseg.training.choices import named_weights, resolve
from detseg.training.claimed_folder import claimed_folder
from detseg.training.loaders import DataModule
from detseg.training.loss_weights import parse_loss_weights
from detseg.training.metrics_log import minutes_of
from detseg.training.phases import phases_of
from detseg.training.result_images import write_result_images
from detseg.training.resume import (
    newest_checkpoint,
    resumed_config,
    resumed_line,
    resumed_model,
    with_absolute_paths,
    write_options,
)
from detseg.training.step_time import seconds_per_step
from detseg.training.time_budget import fit_to_minutes
from detseg.training.trainer import Trainer
from detseg.training.training_metrics import TrainingMetrics


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: contains best.safetensors, last.safetensors, config.toml, split.json, metrics.jsonl, metrics.json and
            images.
        config: all options, resolved.
        metrics: of the best weights on the validation split; without one, the training losses of their epoch.
        model: with the best weights, in eval mode.
    """

    folder: Path
    config: TrainConfig
    metrics: Metrics
    model: torch.nn.Module


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
    with catching_signals() as stop_request, joined_processes(device) as processes:
        reporter = (reporter or terminal()) if processes.is_main else silent()
        return _fit(config, device, stop_request, processes, weights, reporter)


def _fit(
    config: TrainConfig,
    device: torch.device,
    stop_request: StopRequest,
    processes: Processes,
    weights: StartingWeights | None,
    reporter: Reporter,
) -> Run:
    resuming = Path(config.resume) if config.resume else None
    config = with_backbone(with_absolute_paths(config))
    if resuming:
        config = resumed_config(config, resuming, reporter)

    table = load_table(config)
    splits = load_splits(config, table)
    weights = weights or named_weights(config)
    config = with_batch_size(config, table, splits["train"], device, processes, weights, reporter)
    config, chosen = resolve(config, table, splits["train"], MachineFacts.of(device), processes.world, opened=weights)
    assert config.task is not None
    assert config.batch_size is not None
    check_world(len(splits["train"]), config.batch_size, processes.world)
    with claimed_folder(config, processes) as (folder, lock):
        reporter.lines([*describe_table(table), *describe_splits(splits, table, config)])
        plan = ["chosen automatically:", *chosen] if chosen else ["no option was chosen automatically"]
        reporter.plan(plan, asdict(config))
        return _train(config, folder, lock, table, splits, weights, device, stop_request, processes, reporter)


def _train(
    config: TrainConfig,
    folder: Path,
    lock: FolderLock | None,
    table: AnnotationTable,
    splits: Splits,
    weights: StartingWeights | None,
    device: torch.device,
    stop_request: StopRequest,
    processes: Processes,
    reporter: Reporter,
) -> Run:
    """Build or load the model, train all phases, and write the results."""
    resuming = folder if config.resume else None
    val, data = splits.get("val"), fingerprint(splits)
    checkpoint = None
    if resuming:
        if not processes.is_main:
            processes.wait()  # the main process moves corrupt checkpoints aside
        checkpoint = newest_checkpoint(resuming, data, reporter)
        if processes.is_main:
            processes.wait()
    model = resumed_model(checkpoint, config) if checkpoint else new_model(table, config, weights, reporter)
    model = model.to(device)
    if weights:
        weights.release()
    phases = phases_of(config)
    epoch = checkpoint.position.epoch if checkpoint else 0
    done = sum(epoch >= (phase.config.epochs or 0) for phase in phases[:-1])
    trainer: Trainer | None = None
    for phase in phases[done:]:
        if phase.line:
            reporter.phase(phase.line, phase.first_epoch, phase.config.epochs or 0)
        freeze_as(model, phase.config.freeze, phase.config.trainable_layers, norm_eval=bool(config.norm_eval))
        parse_loss_weights(config.loss_weights, model.loss_names())  # an error before anything is computed
        data_module = DataModule(phase.config, model, processes, folder, reporter)
        data_module.prepare(splits["train"], stop_request)
        options, by_minutes = phase.config, config.epochs is None
        if by_minutes:
            measured_val = splits["train"].subset([]) if val is None else val
            options, reasons = fit_to_minutes(options, model, splits["train"], measured_val, data_module, processes)
            config = options
            reporter.plan(reasons, asdict(config))
        loaders = (data_module.train_loader(splits["train"]), None if val is None else data_module.val_loader(val))
        trainer = Trainer(
            options, folder, model, loaders, val, data=data, checkpoint=None if trainer else checkpoint,
            processes=processes, first_epoch=phase.first_epoch, previous=trainer, lock=lock, reporter=reporter,
        )  # fmt: skip
        if resuming and phase is phases[done]:
            reporter.line(resumed_line(resuming, trainer.position))
        if processes.is_main and phase is phases[done]:
            write_options(config, folder)
            if not checkpoint:
                write_split(splits, RunFolder(folder).split, seed=config.seed, how=config.split)
        if not by_minutes:
            evaluates = val is not None
            reporter.lines(time_estimate(model, loaders[0], device, options, trainer.position, evaluates=evaluates))
        trainer.run(stop_request)
    assert trainer is not None
    return _finish(config, trainer, splits, processes, reporter)


def _finish(config: TrainConfig, trainer: Trainer, splits: Splits, processes: Processes, reporter: Reporter) -> Run:
    """Load the best weights, evaluate them, and write the results to the run folder."""
    assert config.task is not None
    folder, model, device = trainer.folder, trainer.model, trainer.device
    rows, position = trainer.rows, trainer.position
    if config.minutes is not None:
        reporter.line(f"{len(rows)} epochs took {minutes_of(rows):.2f} of {config.minutes:g} minutes")
    if processes.is_main:
        model.load_state_dict(load_checkpoint(RunFolder(folder).best).weights)
    processes.broadcast_(list(model.state_dict().values()))  # other machines may have no access to the folder
    model.eval()
    best, val = trainer.best, splits.get("val")
    if best is None and val is None:  # resumed, and no later epoch was better
        best = TrainingMetrics.from_row(next(row for row in rows if row["epoch"] == position.best_epoch))
    elif best is None:
        evaluator = make_evaluator(splits["val"], config.task, model.preprocessing)
        best = evaluate(model, trainer.val_loader, device, evaluator=evaluator, processes=processes, reporter=reporter)
    criterion = "training split, epoch of the lowest loss" if val is None else "validation split, best epoch"
    text = "\n".join([f"{criterion} {position.best_epoch}:", *best.lines()])
    reporter.metrics("train" if val is None else "val", best.to_dict(), text)
    if not processes.is_main:
        processes.wait()
        return Run(folder, config, best, model)
    if "test" in splits:
        test_metrics, test_evaluator = evaluate_table(
            model, splits["test"], device, batch_size=config.batch_size or 1, workers=config.workers or 0,
            reporter=reporter,
        )  # fmt: skip
        write_evaluation(RunFolder(folder).evaluation("test"), test_metrics, test_evaluator)
        text = "\n".join(["test split (not used for model selection):", *test_metrics.lines()])
        reporter.metrics("test", test_metrics.to_dict(), text)
    if plot_curves(rows, RunFolder(folder).curves):
        reporter.image(RunFolder(folder).curves)
    else:
        reporter.line("no curves.png: matplotlib is not installed (pip install 'detseg[plot]')")
    if val is not None:
        write_result_images(folder, model, val, device, best, reporter)
    reporter.done(folder, f"wrote {folder}; predict with: python tools/predict.py {folder} IMAGES")
    processes.wait()
    return Run(folder, config, best, model)


def with_batch_size(
    config: TrainConfig,
    table: AnnotationTable,
    train: AnnotationTable,
    device: torch.device,
    processes: Processes,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
) -> TrainConfig:
    """Replace ``--batch-size 0`` by the largest batch size that fits in the memory of this GPU."""
    if config.batch_size != 0:
        return config
    if device.type != "cuda":
        raise DataError("--batch-size 0 measures the memory of a GPU, but there is none; give a number")
    draft, _ = resolve(replace(config, batch_size=1), table, train, MachineFacts.of(device), opened=weights)
    model = new_model(table, draft, weights, silent()).to(device)
    assert draft.task is not None
    dataset = Dataset(train, model.preprocessing, task=draft.task)
    size, memory_use = fitting_batch_size(model, dataset, device)
    size = int(processes.broadcast_bytes(str(size).encode()))
    (reporter or terminal()).line(f"batch size {size}: {memory_use}")
    return replace(config, batch_size=size)


def new_model(
    table: AnnotationTable,
    config: TrainConfig,
    weights: StartingWeights | None = None,
    reporter: Reporter | None = None,
) -> Model:
    """Create the model of a new run; report which weights were loaded and which parts are trainable.

    Args:
        weights: those of ``config.weights`` if they are open already.
    """
    assert config.model is not None
    torch.manual_seed(derive_seed(config.seed))  # random initialization depends on the seed of the run
    created = create_model(
        config.model,
        table.class_map,
        weights=weights or config.weights,
        freeze_level=config.freeze,
        trainable_layers=config.trainable_layers,
        norm_eval=bool(config.norm_eval),
        image_size=config.image_size,
        rois_per_image=config.rois_per_image or 128,
        mask_rois_per_image=config.mask_rois_per_image,
        detections_per_image=config.detections_per_image or 100,
        anchor_sizes=config.anchor_sizes,
        keypoints=table.keypoint_schema if config.task == "keypoints" else None,
        label_fields=table.label_fields,
        class_transfer=class_pairs(config.class_transfer, table.class_map.names),
        value_range=config.value_range,
    )
    reporter = reporter or terminal()
    reporter.lines(created.lines)
    if config.weights == "none":
        reporter.line(
            "training from scratch: no pretrained weights, so expect low accuracy from few images and few epochs"
        )
    return created.model


def time_estimate(
    model: torch.nn.Module,
    loader: Any,
    device: torch.device,
    config: TrainConfig,
    position: Position,
    *,
    evaluates: bool = True,
) -> list[str]:
    """Estimate the training time from two timed steps that do not change the model: one line, or none for no epochs."""
    epochs = (config.epochs or 0) - position.epoch
    if epochs <= 0:
        return []
    seconds = seconds_per_step(model, loader, device) * len(loader) * epochs
    minutes = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    eval_epochs = config.eval_epochs or 1
    interval = "after each epoch" if eval_epochs == 1 else f"every {eval_epochs} epochs"
    evaluation = f", plus evaluation {interval}" if evaluates else ""
    return [f"{epochs} epochs of {len(loader)} steps: about {minutes} of training{evaluation}"]
