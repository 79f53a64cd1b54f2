"""One optimizer update: accumulate gradients, check that they are finite, apply or undo."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from detseg.engine.correct_counts import Counts, add_counts, batch_counts
from detseg.engine.ema import Ema
from detseg.engine.nonfinite import Batch, NotFinite, message, norm_statistics, restore_norm_statistics
from detseg.engine.precision import Precision
from detseg.runtime.processes import Processes
from detseg.runtime.signals import Interrupted, StopRequest

Target = dict[str, Any]


class Update:
    """Update of a model from one or more batches. Call order for each update: begin, add, check_gradients, apply.

    Attributes:
        batches: batches of the current update so far.
        correct_counts: correct predictions and labelled images in them, for models that count (see ``CountsCorrect``).
        gradient_norms: part of the model -> L2 norm of its gradients before clipping; empty unless asked for.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        epoch: int,
        precision: Precision,
        processes: Processes,
        stop_request: StopRequest,
        names: dict[int, str],
        loss_weights: Mapping[str, float] | None = None,
        norm_parts: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> None:
        """Prepare an update.

        Args:
            loss_weights: factor of each loss term in the total, as in :func:`forward`.
            norm_parts: part of the model -> its parameters, whose gradient norm is computed.
        """
        self.model, self.optimizer, self.device, self.epoch = model, optimizer, device, epoch
        self.precision, self.processes, self.stop_request, self.names = precision, processes, stop_request, names
        self.unwrapped_model = getattr(model, "module", model) if processes.world > 1 else model
        self.trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.loss_weights = loss_weights
        self.batches: list[Batch] = []
        self.correct_counts: Counts = {}
        self.gradient_norms: dict[str, float] = {}
        self._norm_parts = norm_parts or {}
        self._loss_sums: dict[str, float] = {}
        self._statistics: list[tuple[Tensor, Tensor]] = []

    @property
    def images(self) -> int:
        """Number of images in this update so far."""
        return sum(len(batch.images) for batch in self.batches)

    def means(self) -> dict[str, float]:
        """Mean over images of the total loss ("loss") and of each term."""
        return {name: value / self.images for name, value in self._loss_sums.items()}

    def begin(self) -> None:
        """Start an update: clear the gradients, and copy the norm statistics so that they can be restored."""
        self._statistics = norm_statistics(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.batches, self.correct_counts, self._loss_sums = [], {}, {}

    def add(self, batch: Batch, count: int, *, last: bool) -> None:
        """Add the gradients of a batch.

        Args:
            count: number of batches in this update, over which gradients are averaged.
            last: whether this is the last of them, after which the processes average their gradients.

        Raises:
            NotFinite: the loss is not finite, in any process.
            Interrupted: a process received a stop signal (several processes only).
        """
        self.batches.append(batch)
        synchronize = last or self.processes.world == 1
        with nullcontext() if synchronize else self.model.no_sync():  # type: ignore[operator]
            values, loss = forward(self.model, batch, self.device, self.precision, self.loss_weights)
            add_counts(self.correct_counts, batch_counts(self.unwrapped_model))
            stop_requested = bool(self.stop_request.signal_number)
            not_finite, stopping = self.processes.any([not math.isfinite(values["loss"]), stop_requested])
            if stopping and self.processes.world > 1:
                raise Interrupted(self.stop_request.signal_number or signal.SIGTERM)
            if not not_finite:
                self.precision.backward(loss if count == 1 else loss / count)
        for name, value in values.items():
            self._loss_sums[name] = self._loss_sums.get(name, 0.0) + value * len(batch.images)
        if not_finite:
            raise NotFinite(self._message(values, [batch]), self.batches, values)

    def check_gradients(self, clip_norm: float | None) -> None:
        """Clip the gradients to a total L2 norm of ``clip_norm`` (None for no limit), and check that it is finite.

        Raises:
            NotFinite: the norm is not finite, and mixed precision does not explain it.
        """
        self.precision.unscale(self.optimizer)
        self.gradient_norms = part_norms(self._norm_parts)
        limit = clip_norm if clip_norm is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, limit).item()
        if not math.isfinite(norm) and not self.precision.may_overflow:
            values = {"gradient norm": norm, **self.means()}
            raise NotFinite(self._message(values, self.batches), self.batches, values)

    def apply(self, ema: Ema | None) -> None:
        """Update the weights and their moving average."""
        self.precision.step(self.optimizer)
        if ema is not None:
            ema.update(self.unwrapped_model)

    def undo(self) -> None:
        """Restore the state before the update; the weights have not changed yet."""
        self.restore_statistics()
        self.optimizer.zero_grad(set_to_none=True)

    def restore_statistics(self) -> None:
        """Restore the norm statistics from before the update."""
        restore_norm_statistics(self._statistics)

    def _message(self, values: dict[str, float], batches: Sequence[Batch]) -> str:
        return message(values, batches, self.names, self.optimizer, self.epoch)


def part_norms(parts: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
    """Return the L2 norm of the gradients of each part; 0.0 for a part without gradients."""
    gradients = {
        name: [parameter.grad for parameter in parameters if parameter.grad is not None]
        for name, parameters in parts.items()
    }
    norms = [torch.nn.utils.get_total_norm(tensors) for tensors in gradients.values() if tensors]
    values = iter(torch.stack(norms).tolist() if norms else [])
    return {name: next(values) if tensors else 0.0 for name, tensors in gradients.items()}


def forward(
    model: torch.nn.Module,
    batch: Batch,
    device: torch.device,
    precision: Precision,
    loss_weights: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], Tensor]:
    """Run the forward pass; return the loss and its terms as numbers, and the loss tensor for the backward pass.

    Args:
        loss_weights: name of a term -> its factor in the loss; 1 for other terms. The terms are returned without it.
    """
    images, targets = to_device(batch.images, batch.targets, device)
    with precision.autocast():
        losses = model(images, targets)
        loss = torch.stack(list(weighted(losses, loss_weights).values())).sum()
    return {"loss": loss.item(), **{name: term.item() for name, term in losses.items()}}, loss


def weighted(losses: Mapping[str, Any], loss_weights: Mapping[str, float] | None) -> Mapping[str, Any]:
    """Return the loss terms (tensors or numbers), each multiplied by its weight; unchanged without weights."""
    if not loss_weights:
        return losses
    return {name: loss_weights[name] * term if name in loss_weights else term for name, term in losses.items()}


def to_device(
    images: Sequence[Tensor], targets: Sequence[Target], device: torch.device
) -> tuple[list[Tensor], list[Target]]:
    """Move the images and every tensor of the targets to ``device``; other values of a target are unchanged.

    Copies from a loader's pinned memory to a GPU are asynchronous; computations on the GPU wait for them.
    """
    non_blocking = device.type == "cuda"
    moved = [
        {
            key: value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value
            for key, value in target.items()
        }
        for target in targets
    ]
    return [image.to(device, non_blocking=non_blocking) for image in images], moved
