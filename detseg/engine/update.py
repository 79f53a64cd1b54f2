"""One optimizer update: gradients of its batches, a check that they are finite, and a way back."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from detseg.engine.ema import Ema
from detseg.engine.nonfinite import Batch, NotFinite, message, norm_statistics, put_back
from detseg.engine.precision import Precision
from detseg.runtime.processes import Processes
from detseg.runtime.signals import Interrupted, StopRequest

Target = dict[str, Any]


class Update:
    """The update of a model from one or more batches. Begun anew for each: begin, add, check_gradients, apply.

    Attributes:
        batches: of this update so far.
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
    ) -> None:
        self.model, self.optimizer, self.device, self.epoch = model, optimizer, device, epoch
        self.precision, self.processes, self.stop_request, self.names = precision, processes, stop_request, names
        self.raw = getattr(model, "module", model) if processes.world > 1 else model
        self.trainable = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.batches: list[Batch] = []
        self._sums: dict[str, float] = {}
        self._statistics: list[tuple[Tensor, Tensor]] = []

    @property
    def images(self) -> int:
        """Images of this update so far."""
        return sum(len(batch.images) for batch in self.batches)

    def means(self) -> dict[str, float]:
        """Means over the images of the total ("loss") and of each term."""
        return {name: value / self.images for name, value in self._sums.items()}

    def begin(self) -> None:
        """Start an update: no gradients, and a copy of the norm statistics to go back to."""
        self._statistics = norm_statistics(self.model)
        self.optimizer.zero_grad(set_to_none=True)
        self.batches, self._sums = [], {}

    def add(self, batch: Batch, count: int, *, last: bool) -> None:
        """Add the gradients of a batch.

        Args:
            count: batches of this update, whose gradients are averaged.
            last: this is the last of them, after which the processes average their gradients.

        Raises:
            NotFinite: the loss is not finite, in any process.
            Interrupted: another process was asked to leave.
        """
        self.batches.append(batch)
        together = last or self.processes.world == 1
        with nullcontext() if together else self.model.no_sync():  # type: ignore[operator]
            values, loss = forward(self.model, batch, self.device, self.precision)
            asked = bool(self.stop_request.asked)
            faulty, leaving = self.processes.any([not math.isfinite(values["loss"]), asked])
            if leaving and self.processes.world > 1:
                raise Interrupted(self.stop_request.asked or signal.SIGTERM)
            if not faulty:
                self.precision.backward(loss if count == 1 else loss / count)
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * len(batch.images)
        if faulty:
            raise NotFinite(self._message(values, [batch]), self.batches, values)

    def check_gradients(self, clip_norm: float | None) -> None:
        """Limit the total L2 norm of the gradients to ``clip_norm``; None for no limit.

        Raises:
            NotFinite: the norm is not finite, and mixed precision does not explain it.
        """
        self.precision.unscale(self.optimizer)
        limit = clip_norm if clip_norm is not None else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, limit).item()
        if not math.isfinite(norm) and not self.precision.may_overflow:
            values = {"gradient norm": norm, **self.means()}
            raise NotFinite(self._message(values, self.batches), self.batches, values)

    def apply(self, ema: Ema | None) -> None:
        """Update the weights, and the average of them."""
        self.precision.step(self.optimizer)
        if ema is not None:
            ema.update(self.raw)

    def undo(self) -> None:
        """Go back to what stood before the update; the weights have not changed yet."""
        self.restore_statistics()
        self.optimizer.zero_grad(set_to_none=True)

    def restore_statistics(self) -> None:
        """Put back the norm statistics of before the update."""
        put_back(self._statistics)

    def _message(self, values: dict[str, float], batches: Sequence[Batch]) -> str:
        return message(values, batches, self.names, self.optimizer, self.epoch)


def forward(
    model: torch.nn.Module, batch: Batch, device: torch.device, precision: Precision
) -> tuple[dict[str, float], Tensor]:
    """The loss of a batch and its terms as numbers, and the loss to go back from."""
    images, targets = to_device(batch.images, batch.targets, device)
    with precision.autocast():
        losses = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
    return {"loss": loss.item(), **{name: term.item() for name, term in losses.items()}}, loss


def to_device(
    images: Sequence[Tensor], targets: Sequence[Target], device: torch.device
) -> tuple[list[Tensor], list[Target]]:
    """Images and every tensor of the targets on ``device``; other values of a target are passed as they are.

    Copies from a loader's pinned memory to a GPU do not wait for each other; what the GPU computes waits for them.
    """
    ahead = device.type == "cuda"
    moved = [
        {
            key: value.to(device, non_blocking=ahead) if isinstance(value, Tensor) else value
            for key, value in target.items()
        }
        for target in targets
    ]
    return [image.to(device, non_blocking=ahead) for image in images], moved
