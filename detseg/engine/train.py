"""Train for one epoch: one pass over the training data, in a loop that is easy to read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from detseg.engine.correct_counts import Counts, add_counts
from detseg.engine.ema import Ema
from detseg.engine.nonfinite import Batch, NotFinite
from detseg.engine.precision import Name as PrecisionName
from detseg.engine.precision import Precision, as_precision
from detseg.engine.update import Update
from detseg.errors import DataError
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, silent, terminal
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import StopRequest
from detseg.short_text import counted, values


@dataclass(frozen=True)
class Meter:
    """The mean of one number over an epoch, as ``SmoothedValue`` of torchvision's reference scripts has it."""

    global_avg: float


@dataclass(frozen=True)
class EpochStats:
    """Statistics of one training epoch.

    Attributes:
        losses: mean over images of the total ("loss") and of each term ("loss_mask", ...).
        steps: number of optimizer updates.
        images: number of images processed.
        seconds: wall time.
        accuracies: share of correct predictions of the labelled images, by name ("accuracy", or "accuracy_<field>"),
            of the training forward passes: while the weights changed, with augmentation and dropout. None if no image
            had a label. Empty for models that do not count (see ``CountsCorrect``).
        gradient_norms: part of the model -> mean over the updates of the L2 norm of its gradients before clipping; of
            a run that reports details, else empty.
    """

    losses: dict[str, float]
    steps: int
    images: int
    seconds: float
    accuracies: dict[str, float | None] = field(default_factory=dict)
    gradient_norms: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        means = values({**self.accuracies, **self.losses})
        counts = f"{counted(self.steps, 'step')}, {counted(self.images, 'image')}, {self.seconds:.1f} s"
        return f"EpochStats({'; '.join(filter(None, [means, counts]))})"

    @property
    def meters(self) -> dict[str, Meter]:
        """``meters["loss"].global_avg``, for scripts that continue from torchvision's ``train_one_epoch``.

        It has all losses, and the accuracies that are defined. The means are over images; those of torchvision are
        over batches, which differ if the last batch is smaller.
        """
        defined = {name: value for name, value in self.accuracies.items() if value is not None}
        return {name: Meter(value) for name, value in {**self.losses, **defined}.items()}


@dataclass(frozen=True)
class Step:
    """One optimizer update.

    Attributes:
        batches: batches of the epoch consumed so far, including those of this update.
        images: number of images in this update.
        losses: mean over these images of the total and of each term.
        updated: False if the update was skipped because a number was not finite.
        correct_counts: correct predictions and labelled images, for models that count.
        gradient_norms: part of the model -> L2 norm of its gradients; empty unless asked for.
    """

    batches: int
    images: int
    losses: dict[str, float]
    updated: bool = True
    correct_counts: Counts = field(default_factory=dict)
    gradient_norms: dict[str, float] = field(default_factory=dict)


@dataclass
class EpochTotals:
    """Running totals of one epoch, saved in a checkpoint that is written in the middle of an epoch.

    Attributes:
        losses: sum over images of the total and of each term.
        images, steps: number of images processed and of optimizer updates.
        seconds: wall time, including that before the run was resumed.
        correct_counts: name -> number of correct predictions, number of labelled images. Missing in older
            checkpoints.
        gradient_norms: part of the model -> sum over updates, and their number; empty unless details are reported.
    """

    losses: dict[str, float] = field(default_factory=dict)
    images: int = 0
    steps: int = 0
    seconds: float = 0.0
    correct_counts: Counts = field(default_factory=dict)
    gradient_norms: dict[str, tuple[float, int]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        if not step.updated:
            return
        self.images += step.images
        self.steps += 1
        for name, value in step.losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value * step.images
        for name, value in step.gradient_norms.items():
            total, count = self.gradient_norms.get(name, (0.0, 0))
            self.gradient_norms[name] = (total + value, count + 1)
        add_counts(self.correct_counts, step.correct_counts)

    @classmethod
    def of_all(cls, parts: Sequence[EpochTotals]) -> EpochTotals:
        """Combine the totals of several processes; the number of steps is the same in each."""
        total = cls(steps=parts[0].steps, seconds=max(part.seconds for part in parts))
        total.gradient_norms = dict(parts[0].gradient_norms)  # of the averaged gradients: equal in all processes
        for part in parts:
            total.images += part.images
            for name, value in part.losses.items():
                total.losses[name] = total.losses.get(name, 0.0) + value
            add_counts(total.correct_counts, part.correct_counts)
        return total

    def stats(self) -> EpochStats:
        """Convert sums to means over images."""
        means = {name: value / self.images for name, value in self.losses.items()} if self.images else {}
        accuracies = {
            name: correct / labelled if labelled else None for name, (correct, labelled) in self.correct_counts.items()
        }
        norms = {name: total / count for name, (total, count) in self.gradient_norms.items()}
        return EpochStats(means, self.steps, self.images, self.seconds, accuracies, norms)


def train_one_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: torch.utils.data.DataLoader[Any],
    device: torch.device | str,
    epoch: int,
    print_freq: int | None = None,
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip_norm: float | None = None,
    seed: int | None = None,
    accumulate: int = 1,
    precision: PrecisionName | Precision | None = None,
    ema: Ema | None = None,
    stop_request: StopRequest | None = None,
    reporter: Reporter | None = None,
) -> EpochStats:
    """Train ``model`` for one epoch.

    Args:
        model: in training mode ``model(images, targets)`` returns a dict of losses, one scalar tensor each: this
            project's models, torchvision's detectors, or your own model.
        data_loader: yields ``(images, targets)``: lists of [3, H, W] tensors and of dicts.
        epoch: epoch number, from 0; in lines and messages the first epoch is 1.
        print_freq: print a line every ``print_freq`` steps instead of showing a progress bar.
        scheduler: stepped after every update. Without one, the first epoch has a linear warmup over at most 1000 steps,
            as in torchvision's reference script.
        clip_norm: maximum total L2 norm of the gradients; None for no limit.
        stop_request: checked between steps; a pending request is raised there as Interrupted.
        seed: run seed. Before each step the global generators are seeded by (seed, rank 0, step), so that a step uses
            the same random numbers in a resumed run. None: the generators are not seeded.
        accumulate: number of batches whose gradients are averaged for one update (a step); the last update of the epoch
            may have fewer.
        precision: number format of the forward pass: "fp32" (as None), "bf16", or "fp16" with loss scaling. The name
            starts each epoch with the default loss scale of "fp16"; a :class:`Precision` that is passed in every
            epoch keeps its scale. Weights stay float32.
        ema: moving average of the weights, updated after each step; create it once, before the first epoch.
        reporter: shows the progress; the terminal by default.

    Raises:
        DataError: ``accumulate`` is below 1, or ``precision`` is not one of these names.
        FloatingPointError: the loss is not finite. Raised before the update; the message lists the loss terms and the
            images.
    """
    if accumulate < 1:
        raise DataError(f"train_one_epoch: accumulate {accumulate}; it must be at least 1 batch per step")
    step_count = -(-len(data_loader) // accumulate)
    if scheduler is None and epoch == 0:
        scheduler = _reference_warmup(optimizer, step_count)
    reporter = reporter or terminal()
    totals, start_time = EpochTotals(), time.perf_counter()
    steps = train_steps(
        model, optimizer, data_loader, device, epoch, scheduler=scheduler, clip_norm=clip_norm, seed=seed,
        accumulate=accumulate, precision=as_precision(precision, torch.device(device)), ema=ema,
        stop_request=stop_request, reporter=reporter,
    )  # fmt: skip
    with (silent() if print_freq else reporter).bar(f"epoch {epoch + 1}", total=step_count, unit="step") as bar:
        for index, step in enumerate(steps):
            totals.add(step)
            speed = totals.images / (time.perf_counter() - start_time)
            lr = optimizer.param_groups[-1]["lr"]
            bar.update(text=f"loss {step.losses['loss']:.3f}, lr {lr:.2g}, {speed:.1f} images/s")
            if print_freq and (index % print_freq == 0 or step.batches == len(data_loader)):
                terms = ", ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
                done = f"[{step.batches}/{len(data_loader)}]"
                reporter.line(f"epoch {epoch + 1} {done} lr {lr:.6f}, {terms}, {speed:.2f} images/s")
    totals.seconds = time.perf_counter() - start_time
    return totals.stats()


def train_steps(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    data_loader: torch.utils.data.DataLoader[Any],
    device: torch.device | str,
    epoch: int,
    *,
    start: int = 0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip_norm: float | None = None,
    seed: int | None = None,
    accumulate: int = 1,
    precision: Precision | None = None,
    ema: Ema | None = None,
    loss_weights: Mapping[str, float] | None = None,
    norm_parts: Mapping[str, Sequence[torch.Tensor]] | None = None,
    skip_nonfinite: int = 0,
    skipped: int = 0,
    names: dict[int, str] | None = None,
    stop_request: StopRequest | None = None,
    processes: Processes | None = None,
    reporter: Reporter | None = None,
) -> Iterator[Step]:
    """Yield the updates of one epoch. At each yield the update is complete (weights, schedule, average).

    A run resumed from there with ``start=step.batches`` uses the same random numbers and ends with the same weights.

    Args: as in :func:`train_one_epoch`, and
        start: batches of this epoch that are done: not loaded, since the order is a function of (seed, epoch).
        loss_weights: factors of loss terms in the total loss, which is optimized; terms are reported without it.
        norm_parts: part of the model -> its parameters, whose gradient norm is in each step.
        skip_nonfinite: consecutive updates that may be skipped because a number is not finite.
        skipped: consecutive updates skipped just before ``start``.
        names: image_id -> name of the image in messages.
        processes: processes that train this (wrapped) model together. If one has to skip an update or stop, all do.
        reporter: gets a warning for each skipped update; the terminal by default.

    Raises:
        NotFinite: a loss or gradient is not finite, in more than ``skip_nonfinite`` consecutive updates.
        Interrupted: by ``stop_request``, while waiting for data or between two updates. A started update is undone.
        DataError: ``start`` with a loader whose sampler cannot start in the middle of an epoch.
    """
    device, done, total = torch.device(device), start, len(data_loader)
    precision = precision or Precision("fp32", device)
    processes, stop_request = processes or Processes(), stop_request or StopRequest()
    options = (precision, processes, stop_request, names or {}, loss_weights, norm_parts)
    update = Update(model, optimizer, device, epoch, *options)
    _start_at(data_loader, epoch, start)
    batches = stop_request.interruptible(iter(data_loader) if start < total else iter(()), processes.world == 1)
    model.train()
    while done < total:
        end = min(done + accumulate, total)
        update.begin()
        try:
            for index in range(done, end):
                images, targets = next(batches)
                if seed is not None:
                    torch.manual_seed(derive_seed(seed, processes.rank, epoch * total + index))
                update.add(Batch(images, targets, index), end - done, last=index == end - 1)
            update.check_gradients(clip_norm)
        except NotFinite as fault:
            update.undo()
            skipped += 1
            if skipped > skip_nonfinite:
                raise
            (reporter or terminal()).warning(f"update skipped ({skipped} in a row): {fault}")
            for _ in range(end - fault.batches[-1].index - 1):
                next(batches)  # the remaining batches of the skipped update
            step = Step(end, update.images, fault.values, updated=False)
        except BaseException:
            update.restore_statistics()
            raise
        else:
            update.apply(ema)
            counts, norms = update.correct_counts, update.gradient_norms
            skipped, step = 0, Step(end, update.images, update.means(), True, counts, norms)
        done = end
        if scheduler is not None:
            scheduler.step()
        yield step


def _start_at(data_loader: Any, epoch: int, start: int) -> None:
    """Set the epoch of the sampler, and the number of samples to skip."""
    sampler = data_loader.sampler
    if start == 0:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return
    if not hasattr(sampler, "skip"):
        raise DataError(
            f"the loader's {type(sampler).__name__} cannot start at batch {start}; use this project's data_loader, "
            "or restart the epoch"
        )
    sampler.set_epoch(epoch, skip=start * data_loader.batch_size)


def _reference_warmup(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
    length = min(1000, steps - 1)
    if length < 1:
        return None
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0 / 1000, total_iters=length)
