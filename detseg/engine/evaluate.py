"""Score a model on a data loader: metrics, and the validation loss."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from tqdm import tqdm

from detseg.engine.evaluator import evaluator_of
from detseg.engine.update import to_device
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.runtime.processes import Processes
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import StopRequest


class Metrics(Protocol):
    """What every evaluator computes."""

    def best(self) -> float:
        """The one number that picks the best checkpoint, in [0, 1]; higher is better."""

    def scalars(self) -> dict[str, float | None]:
        """The single numbers by name, such as "bbox_AP50"; None where one is not defined."""

    def lines(self) -> list[str]:
        """A table for the terminal."""

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON; None where a number is not defined."""


class Evaluator(Protocol):
    """Collects predictions of many batches, then computes metrics."""

    @property
    def images_seen(self) -> int: ...

    def update(self, targets: Any, outputs: Any) -> None: ...

    def reset(self) -> None: ...

    def to_bytes(self) -> bytes: ...

    def add_bytes(self, content: bytes) -> None: ...

    def compute(self) -> Metrics: ...


@torch.inference_mode()
def evaluate(
    model: torch.nn.Module,
    data_loader: torch.utils.data.DataLoader[Any],
    device: torch.device | str,
    *,
    evaluator: Evaluator | None = None,
    stop_request: StopRequest | None = None,
    processes: Processes | None = None,
) -> Metrics:
    """Run ``model`` in eval mode over ``data_loader`` and score what it gives. The model's mode is restored.

    Args:
        model: ``model(images)`` gives one prediction an image: this project's models, or torchvision's detectors.
        evaluator: gets ``update(targets, outputs)`` per batch and ``compute()`` at the end. Without one it is chosen
            by ``data_loader.dataset`` (which must not augment; see ``evaluator_of``), and the table of results is
            printed, as torchvision's reference script does.
        stop_request: where a request to leave is looked for; it is raised between two batches.
        processes: those that share the images (the loader gives each its own); all get the same metrics, those of all
            images together, which do not depend on how many processes there are.
    """
    device = torch.device(device)
    processes, stop_request = processes or Processes(), stop_request or StopRequest()
    scored: Evaluator = evaluator_of(data_loader.dataset) if evaluator is None else evaluator
    was_training = model.training
    model.eval()
    try:
        batches = stop_request.waiting(iter(data_loader), processes.world == 1)
        count = len(data_loader)
        for images, targets in tqdm(batches, desc="evaluate", total=count, unit="batch", disable=None, leave=False):
            images, _ = to_device(images, [], device)
            scored.update(targets, model(images))
    finally:
        model.train(was_training)
    if processes.world > 1:
        _collect(scored, processes, len(data_loader.dataset))  # type: ignore[arg-type]
    metrics = scored.compute()
    if evaluator is None:
        print("\n".join(metrics.lines()))
    return metrics


def _collect(evaluator: Evaluator, processes: Processes, images: int) -> None:
    """Give every process the predictions of all."""
    parts = processes.gather(evaluator.to_bytes())
    for part in parts[1:]:
        evaluator.add_bytes(part)
    every = processes.broadcast_bytes(evaluator.to_bytes() if processes.is_main else b"")
    if not processes.is_main:
        evaluator.reset()
        evaluator.add_bytes(every)
    assert evaluator.images_seen == images, "every image is scored once"


def validation_loss(
    model: torch.nn.Module,
    data_loader: torch.utils.data.DataLoader[Any],
    device: torch.device | str,
    *,
    seed: int = 0,
    stop_request: StopRequest | None = None,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Mean over images of each loss term and their sum ("loss"), without gradients and without touching the model.

    Detectors draw random boxes for their losses; each batch draws from (seed, batch), so two epochs compare the same
    draws. The state of the global generators is put back afterwards.
    """
    device = torch.device(device)
    processes, stop_request = processes or Processes(), stop_request or StopRequest()
    sums: dict[str, float] = {}
    images_seen = 0
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), losses_in_eval_mode(model):
        batches = stop_request.waiting(iter(data_loader), processes.world == 1)
        count = len(data_loader)
        progress = tqdm(batches, desc="validation loss", total=count, unit="batch", disable=None, leave=False)
        for index, (images, targets) in enumerate(progress):
            torch.manual_seed(derive_seed(seed, processes.rank + index * processes.world))
            images, targets = to_device(images, targets, device)
            losses = {name: term.item() for name, term in model(images, targets).items()}
            images_seen += len(images)
            for name, value in {"loss": sum(losses.values()), **losses}.items():
                sums[name] = sums.get(name, 0.0) + value * len(images)
    names = sorted(sums) if processes.world > 1 else list(sums)  # the losses of a model are the same for every batch
    total, *means = processes.sum([float(images_seen), *(sums[name] for name in names)])
    return {name: value / total for name, value in zip(names, means, strict=True)} if total else {}
