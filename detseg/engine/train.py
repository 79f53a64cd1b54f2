"""One pass over the training data. The loop is meant to be read."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from detseg.seeds import derive_seed

Target = dict[str, Any]


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
    device = torch.device(device)
    sampler: Any = data_loader.sampler
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    if scheduler is None and epoch == 0:
        scheduler = _reference_warmup(optimizer, len(data_loader))
    model.train()
    sums: dict[str, float] = {}
    images_seen = 0
    began = time.perf_counter()
    progress = tqdm(data_loader, desc=f"epoch {epoch}", unit="step", disable=True if print_freq else None, leave=False)
    for index, (images, targets) in enumerate(progress):
        step = epoch * len(data_loader) + index
        if seed is not None:
            torch.manual_seed(derive_seed(seed, 0, step))
        images, targets = to_device(images, targets, device)

        losses = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        values = {"loss": loss.item(), **{name: term.item() for name, term in losses.items()}}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(_not_finite(values, targets, optimizer, epoch, index))

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if clip_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(_trainable(optimizer), clip_norm)
            if not math.isfinite(norm.item()):
                raise FloatingPointError(
                    _not_finite({"gradient norm": norm.item(), **values}, targets, optimizer, epoch, index)
                )
        optimizer.step()
        lr = optimizer.param_groups[-1]["lr"]
        if scheduler is not None:
            scheduler.step()

        images_seen += len(images)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value * len(images)
        speed = images_seen / (time.perf_counter() - began)
        progress.set_postfix_str(f"loss {values['loss']:.3f}, lr {lr:.2g}, {speed:.1f} images/s", refresh=False)
        if print_freq and (index % print_freq == 0 or index == len(data_loader) - 1):
            terms = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            print(f"epoch {epoch} [{index + 1}/{len(data_loader)}] lr {lr:.6f}, {terms}, {speed:.2f} images/s")
    means = {name: value / images_seen for name, value in sums.items()} if images_seen else {}
    return EpochStats(means, len(data_loader), images_seen, time.perf_counter() - began)


def to_device(
    images: Sequence[Tensor], targets: Sequence[Target], device: torch.device
) -> tuple[list[Tensor], list[Target]]:
    """Images and every tensor of the targets on ``device``; other values of a target are passed as they are."""
    moved = [
        {key: value.to(device) if isinstance(value, Tensor) else value for key, value in target.items()}
        for target in targets
    ]
    return [image.to(device) for image in images], moved


def image_ids(targets: Sequence[Target]) -> list[int]:
    """The ``image_id`` of each target that has one."""
    return [int(target["image_id"]) for target in targets if "image_id" in target]


def _reference_warmup(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
    length = min(1000, steps - 1)
    if length < 1:
        return None
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0 / 1000, total_iters=length)


def _trainable(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _not_finite(
    values: dict[str, float], targets: Sequence[Target], optimizer: torch.optim.Optimizer, epoch: int, index: int
) -> str:
    terms = ", ".join(f"{name} {value}" for name, value in values.items())
    return (
        f"epoch {epoch}, step {index}: not finite ({terms}) on images with image_id {image_ids(targets)}; "
        f"the learning rate is {optimizer.param_groups[-1]['lr']:.2g}. The weights were not updated. "
        "Lower --lr or --clip-norm, or look at these images with tools/inspect_data.py"
    )
