"""Compare a training step with torchvision's: same weights, images, boxes, RoIs, freezing and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detseg.benchmarks.speed.drawn_samples import SimulatedRpn, drawn_samples
from detseg.benchmarks.speed.interleaved_timing import Comparison, time_interleaved
from detseg.benchmarks.speed.torchvision_model import baseline_model
from detseg.classes import ClassMap
from detseg.engine.optim import build_optimizer
from detseg.engine.train import train_steps
from detseg.models import Detector, build_model, describe, freeze, load_weights
from detseg.runtime.seeds import derive_seed

CLASSES = ("triangle", "box", "kite")
INSTANCES = 8
"""Per image; many of the proposals are around them, so that a quarter of the RoIs is positive, as in practice."""
BATCH = 2
LR = 1e-4
CLIP_NORM = 10.0
TOLERANCE = 5e-4
"""Maximum difference of two losses, relative to the larger of them and 1: the order of sums differs. Both sides get
the same proposals after their RPNs ran, because rounding can move a proposal across a threshold, and one more positive
changes all later random samples."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: the model and its freezing.
        arch: a name of ``MODELS``.
        weights: "bundled" or "none".
        size_hw: of the images, multiples of 32, so that torchvision infers the correct strides.
        frozen: whether the backbone is frozen, on both sides.
        target: target of the ratio.
        turns: timed steps of each side.
    """

    name: str
    arch: str
    weights: str
    size_hw: tuple[int, int]
    frozen: bool = False
    target: float | None = None
    turns: int = 5


CASES = (
    Case("Mask R-CNN ResNet-50", "maskrcnn_resnet50_fpn", "none", (416, 512), target=1.25),
    Case("Faster R-CNN ResNet-50", "fasterrcnn_resnet50_fpn", "none", (416, 512), target=1.25),
    Case("Mask R-CNN MobileNetV3 slim", "maskrcnn_mobilenet_v3_large_fpn_slim", "bundled", (480, 480), target=1.25),
    Case("Faster R-CNN MobileNetV3 slim", "fasterrcnn_mobilenet_v3_large_fpn_slim", "bundled", (480, 480), target=1.25),
    Case("Mask R-CNN ResNet-50, frozen backbone", "maskrcnn_resnet50_fpn", "none", (416, 512), frozen=True),
    Case(
        "Mask R-CNN MobileNetV3 slim, frozen backbone",
        "maskrcnn_mobilenet_v3_large_fpn_slim",
        "bundled",
        (480, 480),
        frozen=True,
    ),
)


def compare(device: torch.device, cases: tuple[Case, ...] = CASES) -> list[Comparison]:
    """Time a training step of each case on both sides.

    Raises:
        ArithmeticError: the losses of the two sides differ by more than :data:`TOLERANCE`.
    """
    return [_compare(case, device) for case in cases]


def _compare(case: Case, device: torch.device) -> Comparison:
    model, baseline = model_pair(case)
    samples = drawn_samples(BATCH, case.size_hw, instances=INSTANCES, num_labels=len(CLASSES))
    model.rpn, baseline.rpn = SimulatedRpn(model.rpn, samples), SimulatedRpn(baseline.rpn, samples)
    ours, theirs = (
        our_step(model.to(device), samples, device),
        baseline_step(baseline.to(device), samples, device, case),
    )
    losses: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    height, width = case.size_hw
    comparison = time_interleaved(
        f"step: {case.name}, {BATCH} images of {width} x {height}, {INSTANCES} instances each",
        lambda: losses[0].append(ours()),
        lambda: losses[1].append(theirs()),
        baseline="torchvision's detector, SGD and clip_grad_norm_, images of the network's size",
        target=case.target,
        turns=case.turns,
    )
    difference = largest_difference(*losses)
    return replace(
        comparison,
        note=f"losses of {len(losses[0])} steps agree within {difference:.1e} ({TOLERANCE:g} is allowed); "
        f"{model.description.rois_per_image} RoIs per image on both sides",
    )


def largest_difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """Return the largest difference of the losses of two runs, relative to the larger of each pair and 1.

    Raises:
        ArithmeticError: it is more than :data:`TOLERANCE`, or a loss is not a number.
    """
    largest = 0.0
    for number, (losses, baseline_losses) in enumerate(zip(ours, theirs, strict=True)):
        for name in losses.keys() | baseline_losses.keys():
            pair = losses[name], baseline_losses[name]
            difference = abs(pair[0] - pair[1]) / max(1.0, abs(pair[0]), abs(pair[1]))
            if not difference <= TOLERANCE:
                raise ArithmeticError(
                    f"step {number}: {name} is {pair[0]} in detseg and {pair[1]} in torchvision; a difference of up to "
                    f"{TOLERANCE:g} is allowed, so these are not the same steps"
                )
            largest = max(largest, difference)
    return largest


def model_pair(case: Case) -> tuple[Detector, Any]:
    """Return the detseg detector, and torchvision's with the same weights; in training mode."""
    torch.manual_seed(0)
    description = describe(case.arch, ClassMap(CLASSES), weights=case.weights)
    if case.weights == "none":
        description = replace(description, norm="frozen")  # as with published weights
    model = build_model(description)
    assert isinstance(model, Detector)
    load_weights(model, case.weights)
    if case.weights == "none":
        _limit_activations(model)
    baseline = baseline_model(model)
    if case.frozen:
        freeze(model, "backbone")
        baseline.backbone.body.requires_grad_(False)
    return model, baseline


@torch.no_grad()
def _limit_activations(model: Detector) -> None:
    """Scale residual branches: with random weights and constant norm layers the maps would grow from block to block."""
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone.body.layer") and name.endswith("bn3.weight"):
            tensor.fill_(0.2)


def our_step(
    model: Detector, samples: list[tuple[Tensor, dict[str, Tensor]]], device: torch.device
) -> Callable[[], dict[str, float]]:
    """Return a function that runs the next step of the training loop on one batch and returns its losses."""
    # Any: loader of a list
    loader: DataLoader[Any] = DataLoader(samples, BATCH, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))  # type: ignore[arg-type]
    optimizer = build_optimizer(model, lr=LR)
    number = count()

    def step() -> dict[str, float]:
        steps = train_steps(model, optimizer, loader, device, next(number), clip_norm=CLIP_NORM, seed=0)
        losses = next(result.losses for result in list(steps))
        _synchronize(device)
        return losses

    return step


def baseline_step(
    network: nn.Module, samples: list[tuple[Tensor, dict[str, Tensor]]], device: torch.device, case: Case
) -> Callable[[], dict[str, float]]:
    """Return the same function for torchvision's detector in a typical loop; float images are prepared before."""
    images = [image.float() / 255 for image, _ in samples]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=LR, momentum=0.9, weight_decay=1e-4)
    network.train()
    if case.frozen:
        network.get_submodule("backbone.body").eval()
    number = count()

    def step() -> dict[str, float]:
        torch.manual_seed(derive_seed(0, 0, next(number)))
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in samples]
        losses = network([image.to(device) for image in images], targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, CLIP_NORM)
        optimizer.step()
        _synchronize(device)
        return {"loss": loss.item(), **{name: term.item() for name, term in losses.items()}}

    return step


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
