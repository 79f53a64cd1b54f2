"""A run while it trains: epochs of updates, an evaluation after each, and a checkpoint from which all of it goes on."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import Checkpoint, Position, restore, save_checkpoint
from detseg.checkpoints.manager import CheckpointInterval, CheckpointManager
from detseg.engine.ema import Ema
from detseg.engine.evaluate import Metrics, evaluate, validation_loss
from detseg.engine.evaluator import make_evaluator
from detseg.engine.nonfinite import NotFinite
from detseg.engine.precision import Precision
from detseg.engine.schedule import Schedule
from detseg.engine.train import EpochStats, EpochTotals, Step, train_steps
from detseg.errors import DataError
from detseg.inference.evaluation import write_evaluation
from detseg.models import Model
from detseg.options import TrainConfig
from detseg.runtime.processes import Processes
from detseg.runtime.signals import Interrupted, StopRequest
from detseg.training.failed_step import out_of_memory, write_fault
from detseg.training.metrics_log import line, read_rows, row, write_rows
from detseg.training.optimizer import new_optimizer

BEST = "best.safetensors"


class Training:
    """Model, optimizer, schedule and average of a run, and how far they have come.

    Attributes:
        position: where the run stands: between two updates, or between two epochs.
        sums: of the updates of the current epoch.
        rows: of metrics.jsonl, one for each finished epoch.
        best: metrics of the best epoch of this process; None until there is one.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        model: Model,
        loaders: tuple[Any, Any],
        val: AnnotationTable,
        *,
        data: dict[str, Any],
        checkpoint: Checkpoint | None = None,
        processes: Processes | None = None,
        first_epoch: int = 0,
        before: Training | None = None,
    ) -> None:
        """A run, or a phase of one.

        Args:
            config: ``epochs`` is where this phase ends, counted from the run's begin.
            loaders: of training and of validation.
            data: the fingerprint.
            checkpoint: to go on from. At the very begin of a phase only its weights and its position are taken.
            first_epoch: where this phase begins; the optimizer and the schedule begin there.
            before: the phase before this one, whose end is this one's begin.
        """
        assert config.task is not None
        assert config.epochs is not None
        self.config, self.folder, self.model = config, folder, model
        self.processes = processes or Processes()
        self.shared = self.processes.share(model)
        self.train_loader, self.val_loader = loaders
        self.epochs = config.epochs
        self.device = next(model.parameters()).device
        self.optimizer = new_optimizer(model, config)
        self.ema = Ema(model, config.ema) if config.ema is not None else None
        self.scored_model: torch.nn.Module = copy.deepcopy(model) if self.ema else model
        self.precision = Precision(config.precision, self.device)
        self.position: Position = before.position if before else Position()
        self.totals = EpochTotals()
        if checkpoint:
            within = (checkpoint.position.epoch, checkpoint.position.micro_batches) > (first_epoch, 0)
            if within or not first_epoch:
                restore(checkpoint, model, self.optimizer, ema=self.ema, precision=self.precision)
            self.position, self.totals = checkpoint.position, own_totals(checkpoint.totals, self.processes)
            if len(checkpoint.totals) != self.processes.world:
                self.position = self._position_of_others(len(checkpoint.totals))
        updates = self._updates(len(self.train_loader))
        self.schedule = build_schedule(replace(config, epochs=self.epochs - first_epoch), updates)
        self.scheduler = self.schedule.attach(self.optimizer, self.position.step - first_epoch * updates)
        self.rows = read_rows(folder / "metrics.jsonl", self.position.epoch)
        self.manager = CheckpointManager(
            folder,
            model,
            self.optimizer,
            every=CheckpointInterval.parse(config.checkpoint_every),
            keep=config.keep_checkpoints,
            ema=self.ema,
            precision=self.precision,
            data=data,
        )
        self.scorable = is_scorable(val, config.task)
        self.evaluator = make_evaluator(val, config.task, model.preprocessing)
        self.best: Metrics | None = before.best if before else None
        self._names: dict[int, str] = {record.image_id: record.name for record in self.train_loader.dataset.table}

    def run(self, stop_request: StopRequest) -> None:
        """Train to the end, or until somebody asks to leave.

        Raises:
            Interrupted: somebody asked; a checkpoint was written.
            NotFinite: a loss or gradient is not finite; the batch was written beside the checkpoints.
            FloatingPointError: a weight is not finite.
            DataError: out of memory, or a loader process was killed; says what to do.
            OSError: the last checkpoint of the run cannot be written.
        """
        try:
            began = time.perf_counter() - self.totals.seconds
            for epoch in range(self.position.epoch, self.epochs):
                stats = self._learn(epoch, stop_request)
                if self._score(epoch, stats, began, stop_request):
                    print(
                        f"stopped early: no better validation number for {self.position.epochs_without_improvement} epochs"
                    )
                    return
                began += self.rows[-1]["seconds"]  # so that the checkpoint counts, as part of the next epoch
        except Interrupted:
            self._save(insist=True)
            print(f"saved step {self.position.step}; go on with: python tools/train.py --resume {self.folder}")
            raise
        except NotFinite as fault:
            if not all(math.isfinite(value) for value in fault.values.values()):  # here, not in another process
                path = write_fault(self.folder, self.model, fault, self.position, self.config.seed)
                print(f"look at the batch with: python tools/train.py --replay {path}")
            raise
        except torch.OutOfMemoryError as error:
            raise out_of_memory(error, self.config, self.train_loader.dataset.table) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"{str(error).strip()} Often that is the system, short of memory: lower --workers, and go on with "
                f"--resume {self.folder}"
            ) from error

    def _learn(self, epoch: int, stop_request: StopRequest) -> EpochStats:
        """The updates of an epoch that are not done yet."""
        began = time.perf_counter() - self.totals.seconds
        steps = train_steps(
            self.shared,
            self.optimizer,
            self.train_loader,
            self.device,
            epoch,
            start=self.position.micro_batches,
            scheduler=self.scheduler,
            clip_norm=self.config.clip_norm or None,
            seed=self.config.seed,
            accumulate=self.config.accumulate,
            precision=self.precision,
            ema=self.ema,
            skip_nonfinite=self.config.skip_nonfinite,
            skipped=self.position.skipped,
            names=self._names,
            stop_request=stop_request,
            processes=self.processes,
        )
        for step in self._shown(steps, epoch):
            self.totals.add(step)
            self.totals.seconds = time.perf_counter() - began
            self.position = replace(
                self.position,
                step=self.position.step + 1,
                micro_batches=step.batches,
                skipped=0 if step.updated else self.position.skipped + 1,
            )
            if self.processes.any([self.manager.is_due(self.position) and self.processes.is_main])[0]:
                self._save()
        return self._all_stats()

    def _updates(self, batches: int) -> int:
        """Updates that so many batches are."""
        return -(-batches // self.config.accumulate)

    def _position_of_others(self, world: int) -> Position:
        """Where a run stands that ``world`` processes came so far with; their number is not that of this run."""
        position, now = self.position, self.processes.world
        batches = min(position.micro_batches * world // now, len(self.train_loader))
        step = position.epoch * self._updates(len(self.train_loader)) + self._updates(batches)
        batch = (self.config.batch_size or 1) * self.config.accumulate
        print(
            f"begun by {world} process{'es' if world > 1 else ''}, now {now}: "
            f"an update has {batch * now} images instead of {batch * world}. "
            "Weights, optimizer, average and the order of images go on as they were; the number of updates, and with "
            "it the schedule, and the last bits of every sum do not"
        )
        return replace(position, step=step, micro_batches=batches)

    def _save(self, *, insist: bool = False) -> None:
        """Write a checkpoint, in the first process: the others have the same weights, and tell it their sums."""
        totals = self._totals_of_all()
        if self.processes.is_main:
            self.manager.save(self.position, totals, insist=insist)

    def _totals_of_all(self) -> list[EpochTotals]:
        """In the first process those of each; elsewhere none."""
        parts = self.processes.gather(json.dumps(asdict(self.totals)).encode())
        return [EpochTotals(**json.loads(part)) for part in parts]

    def _all_stats(self) -> EpochStats:
        """Of all processes together."""
        totals = self._totals_of_all()
        total = EpochTotals.of_all(totals) if totals else self.totals
        return EpochTotals(**json.loads(self.processes.broadcast_bytes(json.dumps(asdict(total)).encode()))).stats()

    def _shown(self, steps: Iterator[Step], epoch: int) -> Iterator[Step]:
        """The steps under a progress bar, on a terminal."""
        with tqdm(
            desc=f"epoch {epoch}",
            total=len(self.train_loader),
            initial=self.position.micro_batches,
            unit="batch",
            disable=None,
            leave=False,
        ) as progress:
            for step in steps:
                yield step
                speed = self.totals.images / max(self.totals.seconds, 1e-9)
                rate = self.optimizer.param_groups[-1]["lr"]
                text = f"loss {step.losses['loss']:.3f}, lr {rate:.2g}, {speed:.1f} images/s"
                progress.set_postfix_str(text, refresh=False)
                progress.update(step.batches - progress.n)

    def _score(self, epoch: int, stats: EpochStats, began: float, stop_request: StopRequest) -> bool:
        """Evaluate if it is time, log, and write what is best and last; whether the run is to stop early."""
        self.manager.check(self.position)
        last = epoch + 1 == self.epochs
        metrics: Metrics | None = None
        val_losses: dict[str, float] = {}
        if last or (epoch + 1) % (self.config.eval_epochs or 1) == 0:
            metrics, val_losses = self._evaluate(stop_request)
        before = self.position
        score = -1.0 if metrics is None else metrics.best()
        is_best = metrics is not None and (before.best is None or score > before.best or not self.scorable)
        self.position = replace(
            before,
            epoch=epoch + 1,
            micro_batches=0,
            best=score if is_best else before.best,
            best_epoch=epoch if is_best else before.best_epoch,
            epochs_without_improvement=0 if is_best else before.epochs_without_improvement + 1,
        )
        self.totals = EpochTotals()
        self.rows.append(row(epoch, stats, val_losses, metrics, self.optimizer, time.perf_counter() - began))
        print(line(self.rows[-1], self.epochs, is_best))
        self.best = metrics if is_best else self.best
        if is_best and metrics is not None and self.processes.is_main:
            save_checkpoint(self.folder / BEST, self.scored_model, position=self.position, metrics=metrics.to_dict())
            write_evaluation(self.folder, metrics, self.evaluator)
        if self.processes.is_main:
            write_rows(self.folder / "metrics.jsonl", self.rows)
        stopping = metrics is not None and 0 < self.config.patience <= self.position.epochs_without_improvement
        self._save(insist=stopping or last)
        return stopping

    def _evaluate(self, stop_request: StopRequest) -> tuple[Metrics, dict[str, float]]:
        """Metrics and losses on the validation images, of the average where there is one."""
        if self.ema:
            self.scored_model.load_state_dict(self.ema.weights)
        # weights are equal, but each process has norm statistics of its own images
        self.processes.broadcast_(list(self.scored_model.state_dict().values()))
        val_losses = {}
        if self.config.val_loss:
            val_losses = validation_loss(
                self.scored_model, self.val_loader, self.device, seed=self.config.seed,
                stop_request=stop_request, processes=self.processes,
            )  # fmt: skip
        self.evaluator.reset()
        metrics = evaluate(
            self.scored_model, self.val_loader, self.device, evaluator=self.evaluator,
            stop_request=stop_request, processes=self.processes,
        )  # fmt: skip
        return metrics, val_losses


def own_totals(totals: Sequence[EpochTotals], processes: Processes) -> EpochTotals:
    """This process's sums of those in a checkpoint; where it had other processes, the first takes them all."""
    if len(totals) == processes.world:
        return totals[processes.rank]
    return EpochTotals.of_all(totals) if processes.is_main else EpochTotals(steps=totals[0].steps)


def build_schedule(config: TrainConfig, steps_per_epoch: int) -> Schedule:
    """The learning-rate schedule in updates."""
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


def is_scorable(val: AnnotationTable, task: str) -> bool:
    """Whether the validation images have anything to find; if not, that is said."""
    if task == "classify":
        return True
    if task == "keypoints" and val.has_boxes and not val.has_keypoints:
        print("warning: no object of the validation images has a labelled keypoint")
        return False
    if not val.has_boxes:
        print(
            "warning: the validation images hold no objects, so AP is not defined; the last epoch is kept as the best"
        )
    return bool(val.has_boxes)
