"""The main job: from labelled images to a fine-tuned, evaluated model. Read it top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable, write_split
from detseg.config import TrainConfig, to_toml
from detseg.datasets import Dataset, data_loader, preset
from detseg.engine.checkpoint import Position, load_checkpoint, restore, save_checkpoint
from detseg.engine.evaluate import Metrics, evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.engine.optim import build_optimizer
from detseg.engine.schedule import Schedule
from detseg.engine.train import train_one_epoch
from detseg.files import write_text
from detseg.models import Model
from detseg.models.class_rows import class_pairs
from detseg.predictor import pick_device
from detseg.recipes.budget import fit_to_minutes
from detseg.recipes.data import describe_splits, describe_table, load_splits, load_table
from detseg.recipes.defaults import pick_output, resolve
from detseg.recipes.estimate import seconds_per_step
from detseg.recipes.evaluate import evaluate_table, write_evaluation
from detseg.recipes.log import line, minutes_of, read_rows, row, write_rows
from detseg.recipes.model import create_model, with_body
from detseg.recipes.pictures import write_pictures
from detseg.recipes.resume import resumed_config, resumed_model, with_absolute_paths
from detseg.reports.curves import plot_curves
from detseg.seeds import derive_seed


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: best.safetensors, last.safetensors, config.toml, split.json, metrics.jsonl, metrics.json and pictures.
        config: the options in full.
        metrics: of the best weights on the validation part.
        model: with the best weights, in eval mode.
    """

    folder: Path
    config: TrainConfig
    metrics: Metrics
    model: torch.nn.Module


def fit(config: TrainConfig) -> Run:
    """Train, evaluate after every epoch, keep the best; print what is picked and what comes out.

    Raises:
        DataError: data or options that cannot work; the message says which and what to do.
        FloatingPointError: the loss is not finite.
    """
    resuming = Path(config.resume) if config.resume else None
    config = with_body(with_absolute_paths(config))
    if resuming:
        config = resumed_config(config, resuming)

    table = load_table(config)
    splits = load_splits(config, table)
    device = pick_device(config.device)
    config, picked = resolve(config, table, splits["train"], device)
    assert config.task is not None
    assert config.batch_size is not None
    folder = resuming or pick_output(config)
    print("\n".join([*describe_table(table), *describe_splits(splits, table, config)]))
    print("\n".join(["picked:", *picked]) if picked else "every option is given")

    checkpoint = load_checkpoint(resuming / "last.safetensors") if resuming else None
    model = (resumed_model(checkpoint, config) if checkpoint else new_model(table, config)).to(device)
    preprocessing = model.description.preprocessing
    augment = preset(config.augment or "none", config.task)
    train_set = Dataset(splits["train"], preprocessing, task=config.task, augment=augment, seed=config.seed)
    val_set = Dataset(splits["val"], preprocessing, task=config.task)
    workers = config.workers or 0
    train_loader = data_loader(train_set, config.batch_size, shuffle=True, seed=config.seed, workers=workers)
    val_loader = data_loader(val_set, config.batch_size, workers=workers)

    timed = config.epochs is None
    if timed:
        config, reasons = fit_to_minutes(config, model, train_set, val_set, device)
        print("\n".join(reasons))
    assert config.task is not None
    assert config.lr is not None
    assert config.epochs is not None
    assert config.batch_size is not None
    optimizer = build_optimizer(
        model,
        name=config.optimizer or "sgd",
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay or 0.0,
        body_lr=config.body_lr,
    )
    position = Position()
    if checkpoint:
        restore(checkpoint, model, optimizer)
        position = checkpoint.position
        print(f"resuming {resuming} after epoch {position.epoch - 1}")
    schedule = build_schedule(config, len(train_loader))
    scheduler = schedule.attach(optimizer, position.step)
    if not checkpoint:
        write_text(folder / "config.toml", to_toml(replace(config, output=str(folder))))
        write_split(splits, folder / "split.json", seed=config.seed, how=config.split)
    if not timed:
        announce_time(model, train_loader, device, config, position)

    scorable = config.task == "classify" or splits["val"].has_boxes
    if config.task == "keypoints" and scorable and not splits["val"].has_keypoints:
        scorable = False
        print("warning: no object of the validation images has a labelled keypoint")
    if not scorable:
        print(
            "warning: the validation images hold no objects, so AP is not defined; the last epoch is kept as the best"
        )
    evaluator = make_evaluator(splits["val"], config.task, preprocessing)
    best: Metrics | None = None
    rows = read_rows(folder / "metrics.jsonl", position.epoch)
    for epoch in range(position.epoch, config.epochs):
        began = time.perf_counter()
        stats = train_one_epoch(
            model,
            optimizer,
            train_loader,
            device,
            epoch,
            scheduler=scheduler,
            clip_norm=config.clip_norm or None,
            seed=config.seed,
        )
        val_losses = validation_loss(model, val_loader, device, seed=config.seed) if config.val_loss else {}
        evaluator.reset()
        metrics = evaluate(model, val_loader, device, evaluator=evaluator)

        score = metrics.best()
        is_best = position.best is None or score > position.best or not scorable
        position = Position(
            epoch=epoch + 1,
            step=position.step + stats.steps,
            best=score if is_best else position.best,
            best_epoch=epoch if is_best else position.best_epoch,
            waited=0 if is_best else position.waited + 1,
        )
        rows.append(row(epoch, stats, val_losses, metrics, optimizer, time.perf_counter() - began))
        print(line(rows[-1], config.epochs, is_best))
        write_rows(folder / "metrics.jsonl", rows)
        if is_best:
            best = metrics
            save_checkpoint(folder / "best.safetensors", model, position=position, metrics=metrics.to_dict())
            write_evaluation(folder, metrics, evaluator)
        save_checkpoint(folder / "last.safetensors", model, optimizer=optimizer, position=position)
        if config.patience and position.waited >= config.patience:
            print(f"stopped early: no better validation number for {position.waited} epochs")
            break

    if config.minutes is not None:
        print(f"{len(rows)} epochs took {minutes_of(rows):.2f} of {config.minutes:g} minutes")
    model.load_state_dict(load_checkpoint(folder / "best.safetensors").weights)
    model.eval()
    if best is None:  # resumed, and nothing better came
        best = evaluate(model, val_loader, device, evaluator=make_evaluator(splits["val"], config.task, preprocessing))
    print("\n".join([f"best epoch {position.best_epoch}, on the validation images:", *best.lines()]))
    if "test" in splits:
        test_metrics, test_evaluator = evaluate_table(
            model, splits["test"], device, batch_size=config.batch_size, workers=workers
        )
        write_evaluation(folder / "evaluate-test", test_metrics, test_evaluator)
        print("\n".join(["on the test images, which chose nothing:", *test_metrics.lines()]))
    if not plot_curves(rows, folder / "curves.png"):
        print("no curves.png: matplotlib is not installed (pip install 'detseg[plot]')")
    write_pictures(folder, model, splits["val"], device, best)
    print(f"wrote {folder}; use it with: python tools/predict.py {folder} IMAGES")
    return Run(folder, config, best, model)


def new_model(table: AnnotationTable, config: TrainConfig) -> Model:
    """The model that a run begins with; what was loaded and what learns is printed."""
    assert config.model is not None
    torch.manual_seed(derive_seed(config.seed))  # what starts from scratch starts from the run's seed
    created = create_model(
        config.model,
        table.class_map,
        weights=config.weights,
        freeze_level=config.freeze,
        trainable_layers=config.trainable_layers,
        image_size=config.image_size,
        rois_per_image=config.rois_per_image or 128,
        detections_per_image=config.detections_per_image or 100,
        anchor_sizes=config.anchor_sizes,
        keypoints=table.keypoint_schema if config.task == "keypoints" else None,
        label_fields=table.label_fields,
        class_rows=class_pairs(config.map, table.class_map.names),
    )
    print("\n".join(created.lines))
    if config.weights == "none":
        print("training from scratch: no pretrained weights, so expect little from few images and few epochs")
    return created.model


def build_schedule(config: TrainConfig, steps_per_epoch: int) -> Schedule:
    """The learning-rate schedule in steps."""
    total = (config.epochs or 1) * steps_per_epoch
    every = steps_per_epoch * (config.step_epochs if config.schedule == "step" else 1)
    return Schedule(
        config.schedule,
        total_steps=total,
        warmup_steps=config.warmup_steps or 0,
        every=every,
        milestones=tuple(epoch * steps_per_epoch for epoch in config.milestones or ()),
        gamma=config.gamma,
    )


def announce_time(
    model: torch.nn.Module, loader: Any, device: torch.device, config: TrainConfig, position: Position
) -> None:
    """Say how long the run will take, from two timed steps that change nothing."""
    epochs = (config.epochs or 0) - position.epoch
    if epochs <= 0:
        return
    seconds = seconds_per_step(model, loader, device) * len(loader) * epochs
    minutes = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    print(f"{epochs} epochs of {len(loader)} steps: about {minutes} of training, and evaluation after each epoch")
