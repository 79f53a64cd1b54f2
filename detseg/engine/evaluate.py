"""Evaluate a model on a data loader: metrics and validation loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from detseg.engine.evaluator import evaluator_for_dataset
from detseg.engine.update import to_device, weighted
from detseg.metrics.coco_metrics import coco_lines
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.seeds import derive_seed
from detseg.runtime.signals import StopRequest


class Metrics(Protocol):
    """Results of an evaluator."""

    def best(self) -> float:
        """The number that selects the best checkpoint; higher is better. In [0, 1], if it is a validation metric."""

    def scalars(self) -> dict[str, float | None]:
        """Scalar metrics by name, such as "bbox_AP50"; None where a metric is not defined."""

    def lines(self) -> list[str]:
        """Lines for the terminal: the most important numbers in the first one, then a table."""

    def to_dict(self) -> dict[str, Any]:
        """All metrics as a JSON-able dict; None where a metric is not defined."""


class Evaluator(Protocol):
    """Collects the predictions of all batches, then computes metrics."""

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
    reporter: Reporter | None = None,
) -> Metrics:
    """Run ``model`` in eval mode over ``data_loader`` and compute metrics. The model's mode is restored.

    Args:
        model: ``model(images)`` returns one prediction per image: this project's models, or torchvision's detectors.
        evaluator: called with ``update(targets, outputs)`` for each batch and ``compute()`` at the end. Without one, it
            is chosen for ``data_loader.dataset`` (which must not augment; see ``evaluator_for_dataset``), and the table
            of results is reported, as in torchvision's reference script.
        stop_request: checked between two batches; a pending request is raised there as Interrupted.
        processes: processes that share the images (the loader of each has a different subset). All of them return the
            same metrics, over all images, which do not depend on the number of processes.
        reporter: shows the progress, and the table if ``evaluator`` is None; the terminal by default.
    """
    device = torch.device(device)
    processes, stop_request, reporter = processes or Processes(), stop_request or StopRequest(), reporter or terminal()
    active_evaluator: Evaluator = evaluator_for_dataset(data_loader.dataset) if evaluator is None else evaluator
    was_training = model.training
    model.eval()
    try:
        batches = stop_request.interruptible(iter(data_loader), processes.world == 1)
        count = len(data_loader)
        for images, targets in reporter.progress(batches, "evaluate", total=count, unit="batch"):
            images, _ = to_device(images, [], device)
            active_evaluator.update(targets, model(images))
    finally:
        model.train(was_training)
    if processes.world > 1:
        _merge_predictions(active_evaluator, processes, len(data_loader.dataset))  # type: ignore[arg-type]
    metrics = active_evaluator.compute()
    if evaluator is None:
        reporter.metrics("", metrics.to_dict(), "\n".join([*metrics.lines(), *coco_lines(metrics)]))
    return metrics


def _merge_predictions(evaluator: Evaluator, processes: Processes, images: int) -> None:
    """Add the predictions of all processes to the evaluator of each process."""
    contents = processes.gather(evaluator.to_bytes())
    for content in contents[1:]:
        evaluator.add_bytes(content)
    merged = processes.broadcast_bytes(evaluator.to_bytes() if processes.is_main else b"")
    if not processes.is_main:
        evaluator.reset()
        evaluator.add_bytes(merged)
    assert evaluator.images_seen == images, "every image is evaluated once"


def validation_loss(
    model: torch.nn.Module,
    data_loader: torch.utils.data.DataLoader[Any],
    device: torch.device | str,
    *,
    seed: int = 0,
    loss_weights: Mapping[str, float] | None = None,
    stop_request: StopRequest | None = None,
    processes: Processes | None = None,
    reporter: Reporter | None = None,
) -> dict[str, float]:
    """Mean over images of each loss term and their sum ("loss"), without gradients; the model is not changed.

    Detectors sample random boxes for their losses; the generator is seeded by (seed, batch) for each batch, so that two
    epochs use the same samples. The state of the global generators is restored afterwards.

    Args:
        loss_weights: name of a term -> its factor in the sum; 1 for other terms. The terms are returned without it.
        reporter: shows the progress; the terminal by default.
    """
    device = torch.device(device)
    processes, stop_request, reporter = processes or Processes(), stop_request or StopRequest(), reporter or terminal()
    loss_sums: dict[str, float] = {}
    images_seen = 0
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), losses_in_eval_mode(model):
        batches = stop_request.interruptible(iter(data_loader), processes.world == 1)
        count = len(data_loader)
        progress = reporter.progress(batches, "validation loss", total=count, unit="batch")
        for index, (images, targets) in enumerate(progress):
            torch.manual_seed(derive_seed(seed, processes.rank + index * processes.world))
            images, targets = to_device(images, targets, device)
            losses = {name: term.item() for name, term in model(images, targets).items()}
            images_seen += len(images)
            for name, value in {"loss": sum(weighted(losses, loss_weights).values()), **losses}.items():
                loss_sums[name] = loss_sums.get(name, 0.0) + value * len(images)
    names = sorted(loss_sums) if processes.world > 1 else list(loss_sums)  # a model has the same losses in every batch
    image_count, *totals = processes.sum([float(images_seen), *(loss_sums[name] for name in names)])
    return {name: total / image_count for name, total in zip(names, totals, strict=True)} if image_count else {}
