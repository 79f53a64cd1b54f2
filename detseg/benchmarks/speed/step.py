"""One training step against torchvision's: same weights, images, boxes, RoIs, freeze and random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detseg.benchmarks.speed.baseline import baseline_model
from detseg.benchmarks.speed.drawn_samples import SkilledRpn, drawn_samples
from detseg.benchmarks.speed.interleaved_timing import Comparison, in_turn
from detseg.classes import ClassMap
from detseg.engine.optim import build_optimizer
from detseg.engine.train import train_steps
from detseg.models import Detector, build_model, describe, freeze, load_weights
from detseg.runtime.seeds import derive_seed

CLASSES = ("triangle", "box", "kite")
INSTANCES = 8
"""In an image; many of the proposals lie around them, so that a quarter of the RoIs is positive, as in practice."""
BATCH = 2
LR = 1e-4
CLIP_NORM = 10.0
TOLERANCE = 5e-4
"""Between any two losses, of the larger of them and 1: sums are taken in another order. Both sides are given the same
proposals after their RPNs ran, for a last digit can carry a proposal over a threshold, and with one positive more all
that is drawn is drawn otherwise."""


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: what is trained.
        arch: a name of ``MODELS``.
        weights: "bundled" or "none".
        size_hw: of the images, in multiples of 32, so that torchvision guesses the strides right.
        frozen: whether the backbone is, on both sides.
        target: the ratio that is wanted.
        turns: steps of each side that are timed.
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
    model, baseline = both(case)
    samples = drawn_samples(BATCH, case.size_hw, instances=INSTANCES, num_labels=len(CLASSES))
    model.rpn, baseline.rpn = SkilledRpn(model.rpn, samples), SkilledRpn(baseline.rpn, samples)
    ours, theirs = (
        our_step(model.to(device), samples, device),
        baseline_step(baseline.to(device), samples, device, case),
    )
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    height, width = case.size_hw
    comparison = in_turn(
        f"step: {case.name}, {BATCH} images of {width} x {height}, {INSTANCES} instances each",
        lambda: found[0].append(ours()),
        lambda: found[1].append(theirs()),
        baseline="torchvision's detector, SGD and clip_grad_norm_, images of the network's size",
        target=case.target,
        turns=case.turns,
    )
    difference = largest_difference(*found)
    return replace(
        comparison,
        note=f"losses of {len(found[0])} steps agree within {difference:.1e} (of {TOLERANCE:g} allowed); "
        f"{model.description.rois_per_image} RoIs an image on both sides",
    )


def largest_difference(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> float:
    """Between the losses of two runs, of the larger of each pair and 1.

    Raises:
        ArithmeticError: it is more than :data:`TOLERANCE`, or a loss is not a number.
    """
    largest = 0.0
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in mine.keys() | other.keys():
            pair = mine[name], other[name]
            difference = abs(pair[0] - pair[1]) / max(1.0, abs(pair[0]), abs(pair[1]))
            if not difference <= TOLERANCE:
                raise ArithmeticError(
                    f"step {number}: {name} is {pair[0]} here and {pair[1]} in torchvision; they may differ by "
                    f"{TOLERANCE:g}, so these are not the same steps"
                )
            largest = max(largest, difference)
    return largest


def both(case: Case) -> tuple[Detector, Any]:
    """This project's detector, and torchvision's of the same weights; in training mode."""
    torch.manual_seed(0)
    description = describe(case.arch, ClassMap(CLASSES), weights=case.weights)
    if case.weights == "none":
        description = replace(description, norm="frozen")  # as with published weights
    model = build_model(description)
    assert isinstance(model, Detector)
    load_weights(model, case.weights)
    if case.weights == "none":
        _calm(model)
    baseline = baseline_model(model)
    if case.frozen:
        freeze(model, "backbone")
        baseline.backbone.body.requires_grad_(False)
    return model, baseline


@torch.no_grad()
def _calm(model: Detector) -> None:
    """With random weights and constant norm layers a residual network's maps would grow from block to block."""
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone.body.layer") and name.endswith("bn3.weight"):
            tensor.fill_(0.2)


def our_step(
    model: Detector, samples: list[tuple[Tensor, dict[str, Tensor]]], device: torch.device
) -> Callable[[], dict[str, float]]:
    """The training loop over one batch; each call is the next step and gives its losses."""
    # Any: the loader of a list
    loader: DataLoader[Any] = DataLoader(samples, BATCH, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))  # type: ignore[arg-type]
    optimizer = build_optimizer(model, lr=LR)
    number = count()

    def step() -> dict[str, float]:
        steps = train_steps(model, optimizer, loader, device, next(number), clip_norm=CLIP_NORM, seed=0)
        losses = next(one.losses for one in list(steps))
        _wait(device)
        return losses

    return step


def baseline_step(
    network: nn.Module, samples: list[tuple[Tensor, dict[str, Tensor]]], device: torch.device, case: Case
) -> Callable[[], dict[str, float]]:
    """The same with torchvision's detector, as its users write it; float images are made before."""
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
        _wait(device)
        return {"loss": loss.item(), **{name: term.item() for name, term in losses.items()}}

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
