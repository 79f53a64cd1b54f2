"""Train a model: epochs of steps, an evaluation after each, and checkpoints from which the run can resume exactly."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import Checkpoint, Position, restore, save_checkpoint
from detseg.checkpoints.manager import CheckpointInterval, CheckpointManager
from detseg.engine.ema import Ema
from detseg.engine.evaluate import Metrics, evaluate, validation_loss
from detseg.engine.evaluator import AnyEvaluator
from detseg.engine.nonfinite import NotFinite
from detseg.engine.precision import Precision
from detseg.engine.train import EpochStats, EpochTotals, Step, train_steps
from detseg.errors import DataError
from detseg.inference.evaluation import write_evaluation
from detseg.models import Model
from detseg.options.plan import Phase, Plan
from detseg.reports.comparison import AnyPrediction
from detseg.runtime.folder_lock import FolderLock
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.signals import Interrupted, StopRequest
from detseg.training.failed_step import out_of_memory, report_failed_batch
from detseg.training.finished_run import resume_command
from detseg.training.loss_weights import parse_loss_weights
from detseg.training.make_plan import with_epochs
from detseg.training.metrics_log import line, read_rows, row, write_rows
from detseg.training.optimizer import build_schedule, new_optimizer
from detseg.training.remaining_work import training_part
from detseg.training.resume import restored_totals
from detseg.training.run_data import Loaders, RunData
from detseg.training.run_details import gradient_parts, report_evaluation
from detseg.training.time_limit import Cut, EpochSeconds
from detseg.training.training_metrics import TrainingMetrics


class Trainer:
    """Model, optimizer, schedule and weight average of a run, and its progress.

    Attributes:
        position: progress of the run: between two steps, or between two epochs.
        totals: sums over the steps of the current epoch.
        rows: rows of metrics.jsonl, one for each finished epoch.
        best: metrics of the best epoch since this process started; None until there is one.
        best_predictions: image id -> prediction of that epoch for the validation images.
    """

    def __init__(
        self,
        plan: Plan,
        phase: Phase,
        folder: Path,
        model: Model,
        loaders: Loaders,
        data: RunData,
        *,
        checkpoint: Checkpoint | None = None,
        processes: Processes | None = None,
        previous: Trainer | None = None,
        cut: Cut | None = None,
        lock: FolderLock | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Prepare a run, or a phase of one.

        Args:
            phase: one of ``plan.phases``, at whose start the optimizer and the schedule start.
            loaders: batches of this phase. Without validation batches, the weights of the epoch with the lowest
                training loss are the best.
            data: the images of the run.
            checkpoint: to resume from. At the start of a phase only its weights and its position are used.
            previous: trainer of the previous phase, from whose position this one continues.
            cut: reduction of the number of epochs that was decided before the run was stopped.
            lock: of the folder, checked before anything is written.
            reporter: gets the epochs, the progress and warnings; the terminal by default.
        """
        self.plan, self.phase, self.folder, self.model, self.lock = plan, phase, folder, model, lock
        first_epoch = phase.first_epoch
        self.processes, self.reporter = processes or Processes(), reporter or terminal()
        self.shared_model = self.processes.share(model)
        self.loaders, self.data = loaders, data
        self.epochs = phase.epochs
        self.device = next(model.parameters()).device
        self.loss_weights = parse_loss_weights(plan.training.loss_weights, model.loss_names())
        self.optimizer = new_optimizer(model, plan.optimizer, lr=phase.lr)
        self.ema = None if plan.training.ema is None else Ema(model, plan.training.ema)
        self.evaluated_model: torch.nn.Module = copy.deepcopy(model) if self.ema else model
        self.precision = Precision(plan.training.precision, self.device)
        self.position: Position = previous.position if previous else Position()
        self.totals = EpochTotals()
        if checkpoint:
            within_phase = (checkpoint.position.epoch, checkpoint.position.micro_batches) > (first_epoch, 0)
            if within_phase or not first_epoch:
                restore(checkpoint, model, self.optimizer, ema=self.ema, precision=self.precision)
            self.position, self.totals = checkpoint.position, restored_totals(checkpoint, self.processes)
            if len(checkpoint.totals) != self.processes.world:
                self.position = self._position_for_new_world(len(checkpoint.totals))
        epoch_steps = self._step_count(len(self.loaders.train))
        self.schedule = build_schedule(plan.schedule, phase.epochs - first_epoch, epoch_steps)
        self.scheduler = self.schedule.attach(self.optimizer, self.position.step - first_epoch * epoch_steps)
        self.cut = cut
        self._epoch_seconds: list[float] = []
        self._evaluation_seconds: float | None = None
        self.rows = read_rows(RunFolder(folder).metrics_log, self.position.epoch)
        self.manager = CheckpointManager(
            folder,
            model,
            self.optimizer,
            every=CheckpointInterval.parse(plan.checkpoints.checkpoint_every),
            keep=plan.checkpoints.keep_checkpoints,
            ema=self.ema,
            precision=self.precision,
            data=data.fingerprint if self.processes.is_main else None,
            reporter=self.reporter,
        )
        val = data.splits.get("val")
        self.has_ground_truth = val is None or has_ground_truth(val, plan.model.task, self.reporter)
        self.evaluator = data.evaluator(plan, model)
        self.best: Metrics | None = previous.best if previous else None
        self.best_predictions: Mapping[int, AnyPrediction] = previous.best_predictions if previous else {}
        self._names: dict[int, str] = {record.image_id: record.name for record in data.splits.get("train", ())}

    def run(self, stop_request: StopRequest) -> None:
        """Train to the end, or until an exit is requested.

        Raises:
            Interrupted: an exit was requested; a checkpoint was written.
            NotFinite: a loss or gradient is not finite; the batch was written to the run folder.
            FloatingPointError: a weight is not finite.
            DataError: out of memory, or a loader worker was killed; states what to do.
            OSError: the last checkpoint of the run cannot be written.
        """
        try:
            start = time.perf_counter() - self.totals.seconds
            if self.is_stopped_early:
                return
            while self.position.epoch < self.epochs:
                epoch = self.position.epoch
                stats = self._train_epoch(epoch, stop_request)
                if self._finish_epoch(epoch, stats, start, stop_request):
                    criterion = "better validation score" if self.evaluator else "lower training loss"
                    count = self.position.epochs_without_improvement
                    self.reporter.line(f"stopped early: no {criterion} for {count} epochs")
                    return
                start += self.rows[-1]["seconds"]  # the time of the checkpoint counts in the next epoch
        except Interrupted:
            self._save(retry=True)
            self.reporter.line(f"saved step {self.position.step}; resume with: {resume_command(self.folder)}")
            raise
        except NotFinite as error:
            if not all(math.isfinite(value) for value in error.values.values()):  # in this process
                report_failed_batch(self.folder, self.model, error, self.position, self.plan.run.seed, self.reporter)
            raise
        except torch.OutOfMemoryError as error:
            raise out_of_memory(error, self.plan, self.data.splits.get("train")) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"{str(error).strip()} Often the system is out of memory: lower --workers, and resume with "
                f"--resume {self.folder}"
            ) from error

    @property
    def is_stopped_early(self) -> bool:
        """Whether the last epoch was evaluated, and the one that exhausted the patience."""
        position, training = self.position, self.plan.training
        is_evaluated = self.evaluator is None or position.epoch % training.eval_epochs == 0
        between_epochs = position.epoch > 0 and position.micro_batches == 0 and is_evaluated
        return between_epochs and 0 < training.patience <= position.epochs_without_improvement

    def restart_patience(self) -> None:
        """Count the epochs without improvement from 0: a run that was stopped early is to train on."""
        self.position = replace(self.position, epochs_without_improvement=0)
        self._save(retry=True)

    def _train_epoch(self, epoch: int, stop_request: StopRequest) -> EpochStats:
        """Run the remaining steps of an epoch."""
        start = time.perf_counter() - self.totals.seconds
        steps = train_steps(
            self.shared_model,
            self.optimizer,
            self.loaders.train,
            self.device,
            epoch,
            start=self.position.micro_batches,
            scheduler=self.scheduler,
            clip_norm=self.plan.training.clip_norm or None,
            seed=self.plan.run.seed,
            accumulate=self.plan.training.accumulate,
            precision=self.precision,
            ema=self.ema,
            loss_weights=self.loss_weights,
            norm_parts=gradient_parts(self.model) if self.reporter.details else None,
            skip_nonfinite=self.plan.training.skip_nonfinite,
            skipped=self.position.skipped,
            names=self._names,
            stop_request=stop_request,
            processes=self.processes,
            reporter=self.reporter,
        )
        for step in self._with_progress_bar(steps, epoch):
            self.totals.add(step)
            self.totals.seconds = time.perf_counter() - start
            self.position = replace(
                self.position,
                step=self.position.step + 1,
                micro_batches=step.batches,
                skipped=0 if step.updated else self.position.skipped + 1,
            )
            if self.processes.any([self.manager.is_due(self.position) and self.processes.is_main])[0]:
                self._save()
        return self._combined_stats()

    def _step_count(self, batches: int) -> int:
        """Return the number of steps for a number of batches."""
        return -(-batches // self.plan.training.accumulate)

    def _position_for_new_world(self, world: int) -> Position:
        """Return the position for the processes of this run, from a checkpoint of ``world`` processes."""
        position, new_world = self.position, self.processes.world
        batches = min(position.micro_batches * world // new_world, len(self.loaders.train))
        step = position.epoch * self._step_count(len(self.loaders.train)) + self._step_count(batches)
        step_images = self.plan.training.batch_size * self.plan.training.accumulate
        self.reporter.line(
            f"started by {world} process{'es' if world > 1 else ''}, now {new_world}: "
            f"a step has {step_images * new_world} images instead of {step_images * world}. "
            "Weights, optimizer, weight average and the order of images continue unchanged; the number of steps, and "
            "with it the schedule, and the last bits of every sum change"
        )
        return replace(position, step=step, micro_batches=batches)

    def _save(self, *, retry: bool = False) -> None:
        """Write a checkpoint in the main process: the others have the same weights, and send it their totals."""
        totals = self._gathered_totals()
        if self.processes.is_main:
            self.check_folder()
            self.manager.save(self.position, totals, retry=retry)

    def check_folder(self) -> None:
        """Raise DataError if the run folder has vanished or belongs to another run by now."""
        if self.lock is not None:
            self.lock.check()

    def _gathered_totals(self) -> list[EpochTotals]:
        """Return the totals of all processes in the main process; an empty list in the others."""
        parts = self.processes.gather(json.dumps(asdict(self.totals)).encode())
        return [EpochTotals(**json.loads(part)) for part in parts]

    def _combined_stats(self) -> EpochStats:
        """Return the statistics of the epoch over all processes."""
        totals = self._gathered_totals()
        total = EpochTotals.of_all(totals) if totals else self.totals
        return EpochTotals(**json.loads(self.processes.broadcast_bytes(json.dumps(asdict(total)).encode()))).stats()

    def _with_progress_bar(self, steps: Iterator[Step], epoch: int) -> Iterator[Step]:
        """Yield the steps and show a progress bar."""
        total, done, part = len(self.loaders.train), self.position.micro_batches, training_part(self.phase)
        description = f"epoch {epoch + 1}/{self.epochs}"
        with self.reporter.bar(description, total=total, unit="batch", done=done, part=part) as bar:
            for step in steps:
                yield step
                speed = self.totals.images / max(self.totals.seconds, 1e-9)
                rate = self.optimizer.param_groups[-1]["lr"]
                text = f"loss {step.losses['loss']:.3f}, lr {rate:.2g}, {speed:.1f} images/s"
                bar.update(step.batches, text)

    def _finish_epoch(self, epoch: int, stats: EpochStats, start: float, stop_request: StopRequest) -> bool:
        """Evaluate if due, log, and write the best and last weights; returns whether to stop early."""
        self.manager.check(self.position)
        self._epoch_seconds.append(time.perf_counter() - start)
        self._cut_if_late(epoch + 1)
        last = epoch + 1 == self.epochs
        metrics: Metrics | None = None
        val_losses: dict[str, float] = {}
        if self.evaluator is None:
            self._update_evaluated_model()
            metrics = TrainingMetrics.of(epoch, stats) if stats.losses else None
        elif last or (epoch + 1) % self.plan.training.eval_epochs == 0:
            metrics, val_losses = self._evaluate(self.evaluator, stop_request)
        previous, totals = self.position, self.totals
        score = -1.0 if metrics is None else metrics.best()
        is_best = metrics is not None and (previous.best is None or score > previous.best or not self.has_ground_truth)
        self.position = replace(
            previous,
            epoch=epoch + 1,
            micro_batches=0,
            best=score if is_best else previous.best,
            best_epoch=epoch if is_best else previous.best_epoch,
            epochs_without_improvement=0 if is_best else previous.epochs_without_improvement + 1,
        )
        self.totals = EpochTotals()
        seconds = time.perf_counter() - start
        self.rows.append(row(epoch, stats, val_losses, metrics, self.optimizer, seconds, self.reporter.details))
        self.reporter.epoch(self.rows[-1], self.epochs, is_best, line(self.rows[-1], self.epochs, is_best))
        report_evaluation(self.reporter, self.plan, self.data, epoch + 1, metrics, self.evaluator, self.evaluated_model)
        self.best = metrics if is_best else self.best
        if is_best and self.evaluator is not None:
            self.best_predictions = dict(self.evaluator.predictions)
        error = self._write_epoch(metrics if is_best else None) if self.processes.is_main else None
        if self.processes.any([error is not None])[0]:
            self.position, self.totals = previous, totals  # the evaluation is repeated after a resume
            self._save()
            raise error or OSError("stopped: the main process could not write a file")
        stopping = metrics is not None and 0 < self.plan.training.patience <= self.position.epochs_without_improvement
        self._save(retry=stopping or last)
        return stopping

    def _write_epoch(self, best: Metrics | None) -> OSError | None:
        """Write metrics.jsonl, and the weights and results of a best epoch; returns the error of a write."""
        self.check_folder()
        run = RunFolder(self.folder)
        try:
            if best is not None:
                save_checkpoint(run.best, self.evaluated_model, position=self.position, metrics=best.to_dict())
                write_evaluation(self.folder, best, self.evaluator)
            write_rows(run.metrics_log, self.rows)
        except OSError as error:
            return error
        return None

    def _cut_if_late(self, done: int) -> None:
        """Reduce the number of epochs, once, if the run would exceed its minutes, or if it did so before a resume."""
        budget = self.loaders.budget
        if self.cut is None and budget is not None:
            training = sum(self._epoch_seconds) / len(self._epoch_seconds)
            evaluation = self._evaluation_seconds
            if evaluation is None:
                evaluation = budget.seconds.evaluation * training / max(budget.seconds.training, 1e-9)
            seconds = EpochSeconds(training, evaluation, budget.seconds.saving)
            fewer = budget.limit.cut(done, self.epochs, seconds) or 0
            epochs = int(self.processes.broadcast_bytes(str(fewer).encode()))
            self.cut = Cut(done, epochs) if epochs else None
            if self.cut is not None and self.processes.is_main:
                self.cut.write(self.folder)
        if self.cut is not None and self.cut.after == done and self.cut.epochs < self.epochs:
            self._set_epochs(self.cut.epochs)

    def _set_epochs(self, epochs: int) -> None:
        """Train for fewer epochs than planned; the schedule is that of the new number from now on."""
        training = sum(self._epoch_seconds) / len(self._epoch_seconds)
        reason = f"cut from {self.epochs}: an epoch takes {training:.2g} s"
        self.reporter.line(f"epochs {epochs} ({reason}; the minutes end)")
        self.plan = with_epochs(self.plan, epochs, reason, self.data.train_images, self.processes.world)
        (self.phase,) = self.plan.phases
        self.epochs = epochs
        self.schedule = build_schedule(self.plan.schedule, epochs, self._step_count(len(self.loaders.train)))
        self.scheduler = self.schedule.attach(self.optimizer, self.position.step)

    def _update_evaluated_model(self) -> None:
        """Give every process the weights to evaluate and save: the weight average if there is one."""
        if self.ema:
            self.evaluated_model.load_state_dict(self.ema.weights)
        # weights are equal, but each process has norm statistics of its own images
        self.processes.broadcast_(list(self.evaluated_model.state_dict().values()))

    def _evaluate(self, evaluator: AnyEvaluator, stop_request: StopRequest) -> tuple[Metrics, dict[str, float]]:
        """Return metrics and losses of the validation split."""
        began = time.perf_counter()
        self._update_evaluated_model()
        val_losses = {}
        if self.plan.training.val_loss:
            val_losses = validation_loss(
                self.evaluated_model, self.loaders.val, self.device, seed=self.plan.run.seed,
                loss_weights=self.loss_weights, stop_request=stop_request, processes=self.processes,
                reporter=self.reporter,
            )  # fmt: skip
        evaluator.reset()
        metrics = evaluate(
            self.evaluated_model, self.loaders.val, self.device, evaluator=evaluator,
            stop_request=stop_request, processes=self.processes, reporter=self.reporter,
        )  # fmt: skip
        self._evaluation_seconds = time.perf_counter() - began
        return metrics, val_losses


def has_ground_truth(val: AnnotationTable, task: str, reporter: Reporter) -> bool:
    """Return whether the validation split has ground truth; reports a warning if not."""
    if task == "classify":
        return True
    if task == "keypoints" and val.has_boxes and not val.has_keypoints:
        reporter.warning("warning: no object in the validation split has a labelled keypoint")
        return False
    if not val.has_boxes:
        reporter.warning(
            "warning: the validation split has no objects, so AP is not defined; the last epoch is saved as the best"
        )
    return bool(val.has_boxes)
