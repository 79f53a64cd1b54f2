"""Compare frozen training with the baseline, which runs the frozen parts in every step, and with full fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet18

from detseg.benchmarks.speed.drawn_samples import SimulatedRpn, Target, drawn_samples
from detseg.benchmarks.speed.interleaved_timing import Comparison, time_interleaved
from detseg.benchmarks.speed.torchvision_model import baseline_model
from detseg.classes import ClassMap
from detseg.engine.optim import build_optimizer
from detseg.engine.train import train_one_epoch
from detseg.errors import DataError
from detseg.models import build_model, describe, freeze
from detseg.runtime.seeds import derive_seed

CLASSES = ClassMap.from_names(("bolt", "nut", "washer"))
BATCH = 2
LR = 1e-6
"""So small that the weights are nearly the same in every turn, and the losses of both implementations comparable."""
TOLERANCE = 1e-3
"""Maximum relative difference of the first losses: rounding differs if images share a batch."""


@dataclass(frozen=True)
class Case:
    """One training setup.

    Attributes:
        title: in the table.
        arch: detseg architecture; the baseline has the same modules and weights.
        level: freeze level.
        target: target ratio to the baseline.
    """

    title: str
    arch: str
    level: str
    target: float


CASES = (
    Case("Mask R-CNN R50-FPN, heads only", "maskrcnn_resnet50_fpn", "rpn", 3),
    Case("Faster R-CNN R50-FPN, heads only", "fasterrcnn_resnet50_fpn", "rpn", 5),
    Case("Mask R-CNN R50-FPN, backbone frozen", "maskrcnn_resnet50_fpn", "backbone", 2),
    Case("Faster R-CNN R50-FPN, backbone frozen", "fasterrcnn_resnet50_fpn", "backbone", 2),
)


def compare(device: torch.device) -> list[Comparison]:
    """Return a row for each case of :data:`CASES`, two against full fine-tuning, and a whole run of a classifier."""
    comparisons = [detector(case, device) for case in CASES]
    comparisons += [against_full(case, device) for case in CASES[:2]]
    return [*comparisons, classifier(device)]


def detector(
    case: Case, device: torch.device, *, size_hw: tuple[int, int] = (480, 640), images: int = 4, turns: int = 3
) -> Comparison:
    """Compare an epoch with cached features of ``images``; the images of the baseline have the same size."""
    samples = drawn_samples(images, size_hw, instances=8, num_labels=len(CLASSES))
    model, baseline = _pair(case, case.level, samples, device)
    ours, theirs = _cached_epoch(model, samples, device), _baseline_epoch(baseline, samples, device)
    difference = _check_losses(ours(), theirs())
    return time_interleaved(
        f"{case.title}, {size_hw[0]} x {size_hw[1]}",
        ours,
        theirs,
        baseline="torchvision's model and loop, the same parts frozen",
        target=case.target,
        note=f"relative difference of the first losses {difference:.1e}",
        turns=turns,
    )


def against_full(
    case: Case, device: torch.device, *, size_hw: tuple[int, int] = (480, 640), images: int = 2, turns: int = 3
) -> Comparison:
    """Compare the same with fine-tuning of all parts."""
    samples = drawn_samples(images, size_hw, instances=8, num_labels=len(CLASSES))
    model, _ = _pair(case, case.level, samples, device)
    _, full = _pair(case, "none", samples, device)
    return time_interleaved(
        f"{case.title} against full fine-tuning, {size_hw[0]} x {size_hw[1]}",
        _cached_epoch(model, samples, device),
        _baseline_epoch(full, samples, device),
        baseline="torchvision's model and loop, all parts trained",
        target=8,
        turns=turns,
    )


def classifier(
    device: torch.device, *, size: int = 224, images: int = 40, epochs: int = 10, turns: int = 3
) -> Comparison:
    """Compare a run of ResNet-18 with a frozen backbone: feature computation, ``epochs`` of the head, evaluations."""
    samples = [(image, {"class_index": target["labels"][0] - 1, "image_id": target["image_id"]}) for image, target in
               drawn_samples(images, (size, size), instances=1, num_labels=len(CLASSES))]  # fmt: skip
    train, val = samples[: -images // 5], samples[-images // 5 :]
    torch.manual_seed(0)
    model: Any = build_model(describe("resnet18", CLASSES, weights="none")).to(device)
    freeze(model, "backbone")
    baseline = resnet18(num_classes=len(CLASSES)).to(device)
    baseline.load_state_dict(model.state_dict())
    for name, parameter in baseline.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))

    def ours() -> list[float]:
        network = copy.deepcopy(model).train()
        optimizer = build_optimizer(network, lr=0.01)
        images, targets = zip(*train, strict=True)
        features = network.frozen_features([image.to(device) for image in images])
        val_images, _ = zip(*val, strict=True)
        val_features = network.eval().frozen_features([image.to(device) for image in val_images])
        network.train()
        losses = []
        for epoch in range(epochs):
            loader = _Batches([*zip(features, targets, strict=True)], 16)
            stats = train_one_epoch(network, optimizer, loader, device, epoch + 1, seed=0)  # type: ignore[arg-type]
            losses.append(stats.losses["loss"])
            network.eval()(val_features)
            network.train()
        return losses

    def theirs() -> list[float]:
        network = copy.deepcopy(baseline)
        optimizer = torch.optim.SGD(network.fc.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        losses = []
        for _ in range(epochs):
            network.eval()  # norm statistics do not change, as in detseg
            total = 0.0
            for begin in range(0, len(train), 16):
                batch = train[begin : begin + 16]
                pixels = torch.stack([model.normalise(image.to(device)) for image, _ in batch])
                index = torch.stack([target["class_index"] for _, target in batch]).to(device)
                loss = functional.cross_entropy(network(pixels), index)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            losses.append(total / len(train))
            with torch.no_grad():
                network(torch.stack([model.normalise(image.to(device)) for image, _ in val]))
        return losses

    difference = _check_losses(ours()[:1], theirs()[:1])
    return time_interleaved(
        f"ResNet-18, backbone frozen, {size} px, a whole run of {epochs} epochs",
        ours,
        theirs,
        baseline="torchvision's model and loop, the backbone frozen",
        target=8,
        note=f"relative difference of the first losses {difference:.1e}; both use one view of each image",
        turns=turns,
    )


def _pair(case: Case, level: str, samples: list[tuple[Tensor, Target]], device: torch.device) -> tuple[Any, Any]:
    """Return the detseg model, and torchvision's with the same weights and the same frozen parts."""
    torch.manual_seed(0)
    # norm layers as with pretrained weights
    description = replace(describe(case.arch, CLASSES, weights="none"), norm="frozen", norm_eps=1e-5)
    model: Any = build_model(description).to(device)
    state = model.state_dict()
    for name, buffer in state.items():  # with random weights the feature maps would grow from layer to layer
        if name.endswith("running_var"):
            buffer.fill_(3.0)
    model.load_state_dict(state)
    baseline = baseline_model(model)
    for network in (model, baseline):
        network.rpn = SimulatedRpn(network.rpn, samples)
    freeze(model, level)
    for name in model.frozen_modules:
        baseline.get_submodule(name).requires_grad_(False)
        if name == "rpn":
            baseline.rpn.eval()  # otherwise it would compute losses without effect
    return model, baseline


def _restart(model: Any) -> None:
    """Start again with the first sample."""
    model.rpn.next_sample = 0


class _Batches:
    """Loader of samples in memory, in order."""

    def __init__(self, samples: Sequence[tuple[Any, Any]], batch_size: int) -> None:
        self.samples, self.batch_size, self.sampler = samples, batch_size, None

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self.samples), self.batch_size):
            yield tuple(zip(*self.samples[begin : begin + self.batch_size], strict=True))


def _check_losses(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the relative difference of the losses; DataError above :data:`TOLERANCE`."""
    difference = max(abs(loss - other) / abs(other) for loss, other in zip(ours, theirs, strict=True))
    if not difference <= TOLERANCE:
        raise DataError(f"losses {list(ours)} of detseg and {list(theirs)} of the baseline are not of equal work")
    return difference


def _cached_epoch(model: Any, samples: list[tuple[Tensor, Target]], device: torch.device) -> Callable[[], list[float]]:
    """Return a function that trains an epoch on features, computed once here and cached in float16 as in a run."""
    level = model.levels()[0]
    _restart(model)
    cached = [
        model.frozen_features([image.to(device)], level)[0].to("cpu").with_maps(torch.float16) for image, _ in samples
    ]
    batches = [(features, target) for features, (_, target) in zip(cached, samples, strict=True)]
    optimizer = build_optimizer(model, lr=LR)

    def epoch() -> list[float]:
        _restart(model)
        return [train_one_epoch(model, optimizer, _Batches(batches, BATCH), device, 1, seed=0).losses["loss"]]  # type: ignore[arg-type]

    return epoch


def _baseline_epoch(
    baseline: Any, samples: list[tuple[Tensor, Target]], device: torch.device
) -> Callable[[], list[float]]:
    """Return a function that trains an epoch in a typical torchvision loop."""
    parameters = [parameter for parameter in baseline.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=0.9, weight_decay=1e-4)
    batches = [samples[begin : begin + BATCH] for begin in range(0, len(samples), BATCH)]

    def epoch() -> list[float]:
        _restart(baseline)
        total = 0.0
        for step, batch in enumerate(batches):
            torch.manual_seed(derive_seed(0, 0, len(batches) + step))
            images = [image.to(device).float() / 255 for image, _ in batch]
            targets = [{key: value.to(device) for key, value in target.items()} for _, target in batch]
            loss = sum(baseline(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        return [total / len(samples)]

    return epoch
