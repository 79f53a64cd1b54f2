"""One pass over the training data. The loop is meant to be read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from detseg.engine.ema import Ema
from detseg.engine.nonfinite import Batch, NotFinite
from detseg.engine.precision import Precision
from detseg.engine.update import Update
from detseg.errors import DataError
from detseg.runtime.processes import Processes
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import StopRequest


@dataclass(frozen=True)
class EpochStats:
    """What one epoch of training was.

    Attributes:
        losses: mean over images of the total ("loss") and of each term ("loss_mask", ...).
        steps: optimizer updates done.
        images: images seen.
        seconds: wall time.
    """

    losses: dict[str, float]
    steps: int
    images: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """One optimizer update.

    Attributes:
        batches: batches of the epoch consumed so far, this update's included.
        images: images of this update.
        losses: mean over these images of the total and of each term.
        updated: False if the update was left out because a number was not finite.
    """

    batches: int
    images: int
    losses: dict[str, float]
    updated: bool = True


@dataclass
class EpochTotals:
    """Running sums of one epoch; what a checkpoint in the middle of an epoch keeps of its steps.

    Attributes:
        losses: sum over images of the total and of each term.
        images, steps: images seen and updates done.
        seconds: wall time, of all processes that worked on this epoch.
    """

    losses: dict[str, float] = field(default_factory=dict)
    images: int = 0
    steps: int = 0
    seconds: float = 0.0

    def add(self, step: Step) -> None:
        if not step.updated:
            return
        self.images += step.images
        self.steps += 1
        for name, value in step.losses.items():
            self.losses[name] = self.losses.get(name, 0.0) + value * step.images

    @classmethod
    def of_all(cls, parts: Sequence[EpochTotals]) -> EpochTotals:
        """Those of several processes together; steps are the same for all."""
        total = cls(steps=parts[0].steps, seconds=max(part.seconds for part in parts))
        for part in parts:
            total.images += part.images
            for name, value in part.losses.items():
                total.losses[name] = total.losses.get(name, 0.0) + value
        return total

    def stats(self) -> EpochStats:
        """Means over images."""
        means = {name: value / self.images for name, value in self.losses.items()} if self.images else {}
        return EpochStats(means, self.steps, self.images, self.seconds)


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
) -> EpochStats:
    """Train ``model`` for one epoch.

    Args:
        model: in training mode ``model(images, targets)`` gives a dict of losses, one scalar tensor each: this
            project's models, torchvision's detectors, or your own.
        data_loader: yields ``(images, targets)``: lists of [3, H, W] tensors and of dicts.
        epoch: number of this epoch, from 0.
        print_freq: print a line every so many steps instead of showing a progress bar.
        scheduler: stepped after every update. Without one the first epoch warms up linearly over at most 1000 steps,
            as torchvision's reference script does.
        clip_norm: limit of the gradient's total L2 norm; None for no limit.
        seed: run seed. Before each step the global generators are set from (seed, rank 0, step), so that a step draws
            the same numbers however the run got there. None leaves them alone.

    Raises:
        FloatingPointError: the loss is not finite. Raised before the update, naming the loss terms and the images.
    """
    if scheduler is None and epoch == 0:
        scheduler = _reference_warmup(optimizer, len(data_loader))
    totals, began = EpochTotals(), time.perf_counter()
    steps = train_steps(
        model, optimizer, data_loader, device, epoch, scheduler=scheduler, clip_norm=clip_norm, seed=seed
    )
    progress = tqdm(
        steps, desc=f"epoch {epoch}", total=len(data_loader), unit="step", disable=True if print_freq else None,
        leave=False,
    )  # fmt: skip
    for step in progress:
        totals.add(step)
        speed = totals.images / (time.perf_counter() - began)
        lr = optimizer.param_groups[-1]["lr"]
        progress.set_postfix_str(f"loss {step.losses['loss']:.3f}, lr {lr:.2g}, {speed:.1f} images/s", refresh=False)
        if print_freq and ((step.batches - 1) % print_freq == 0 or step.batches == len(data_loader)):
            terms = ", ".join(f"{name} {value:.4f}" for name, value in step.losses.items())
            print(f"epoch {epoch} [{step.batches}/{len(data_loader)}] lr {lr:.6f}, {terms}, {speed:.2f} images/s")
    totals.seconds = time.perf_counter() - began
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
    skip_nonfinite: int = 0,
    skipped: int = 0,
    names: dict[int, str] | None = None,
    stop_request: StopRequest | None = None,
    processes: Processes | None = None,
) -> Iterator[Step]:
    """The updates of one epoch, one after the other.

    At each yield the update is complete (weights, schedule, average), so what stands there can be saved, and a run that
    goes on from it with ``start=step.batches`` draws the same numbers and ends with the same bits.

    Args:
        start: batches of this epoch that are already done. They are not loaded: the order is a function of (seed,
            epoch), and the sampler begins behind them.
        accumulate: batches whose gradients are averaged for one update; the last update of an epoch may have fewer.
        skip_nonfinite: updates in a row that may be left out because a number is not finite.
        skipped: how many were left out in a row before ``start``.
        names: image_id -> what messages call the image.
        stop_request: where a request to leave is looked for.
        processes: those that train this model together; ``model`` is then their shared one. They leave out updates and
            leave the run together, whichever of them has the reason.

    Raises:
        NotFinite: a loss or gradient is not finite, once more than ``skip_nonfinite`` times in a row.
        Interrupted: while waiting for data or between two updates. Nothing of the update that was begun remains.
        DataError: ``start`` with a loader whose sampler cannot begin in the middle.
    """
    device = torch.device(device)
    precision = precision or Precision("fp32", device)
    processes, stop_request = processes or Processes(), stop_request or StopRequest()
    update = Update(model, optimizer, device, epoch, precision, processes, stop_request, names or {})
    done, total = start, len(data_loader)
    _begin_at(data_loader, epoch, start)
    loaded = stop_request.waiting(iter(data_loader) if start < total else iter(()), processes.world == 1)
    model.train()
    while done < total:
        end = min(done + accumulate, total)
        update.begin()
        try:
            for index in range(done, end):
                images, targets = next(loaded)
                if seed is not None:
                    torch.manual_seed(derive_seed(seed, processes.rank, epoch * total + index))
                update.add(Batch(images, targets, index), end - done, last=index == end - 1)
            update.check_gradients(clip_norm)
        except NotFinite as fault:
            update.undo()
            skipped += 1
            if skipped > skip_nonfinite:
                raise
            tqdm.write(f"left out, {skipped} in a row: {fault}")
            for _ in range(end - fault.batches[-1].index - 1):
                next(loaded)  # the rest of the update that is left out
            step = Step(end, update.images, fault.values, updated=False)
        except BaseException:
            update.restore_statistics()
            raise
        else:
            update.apply(ema)
            skipped = 0
            step = Step(end, update.images, update.means())
        done = end
        if scheduler is not None:
            scheduler.step()
        yield step


def _begin_at(data_loader: Any, epoch: int, start: int) -> None:
    """Tell the sampler the epoch, and how many of its samples are done."""
    sampler = data_loader.sampler
    if start == 0:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return
    if not hasattr(sampler, "skip"):
        raise DataError(
            f"the loader's {type(sampler).__name__} cannot begin at batch {start}; use this project's data_loader, "
            "or begin the epoch anew"
        )
    sampler.set_epoch(epoch, skip=start * data_loader.batch_size)


def _reference_warmup(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
    length = min(1000, steps - 1)
    if length < 1:
        return None
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0 / 1000, total_iters=length)
