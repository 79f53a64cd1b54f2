"""Frozen training against the baseline, which runs the frozen parts in every step, and against full fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import resnet18

from detseg.benchmarks.speed.baseline import baseline_model
from detseg.benchmarks.speed.drawn_samples import SkilledRpn, Target, drawn_samples
from detseg.benchmarks.speed.interleaved_timing import Comparison, in_turn
from detseg.classes import ClassMap
from detseg.engine.optim import build_optimizer
from detseg.engine.train import train_one_epoch
from detseg.errors import DataError
from detseg.models import build_model, describe, freeze
from detseg.runtime.seeds import derive_seed

CLASSES = ClassMap.from_names(("bolt", "nut", "washer"))
BATCH = 2
LR = 1e-6
"""So small that every turn meets the same weights, and the losses of both ways stay comparable."""
TOLERANCE = 1e-3
"""Both ways' first losses differ by no more than this share: they round differently where images share a batch."""


@dataclass(frozen=True)
class Case:
    """What is trained.

    Attributes:
        title: in the table.
        arch: ours; the baseline has the same modules and weights.
        level: frozen up to here.
        target: ratio to the baseline that is wanted.
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
    """A row for each case of :data:`CASES`, two against full fine-tuning, and a whole run of a classifier."""
    found = [detector(case, device) for case in CASES]
    found += [against_full(case, device) for case in CASES[:2]]
    return [*found, classifier(device)]


def detector(
    case: Case, device: torch.device, *, size_hw: tuple[int, int] = (480, 640), images: int = 4, turns: int = 3
) -> Comparison:
    """An epoch over ``images`` of which the features are there already; the baseline's images are of that size too."""
    samples = drawn_samples(images, size_hw, instances=8, num_labels=len(CLASSES))
    model, baseline = _pair(case, case.level, samples, device)
    ours, theirs = _cached_epoch(model, samples, device), _baseline_epoch(baseline, samples, device)
    difference = _checked(ours(), theirs())
    return in_turn(
        f"{case.title}, {size_hw[0]} x {size_hw[1]}",
        ours,
        theirs,
        baseline="torchvision's model and loop, the same parts frozen",
        target=case.target,
        note=f"first losses differ by {difference:.1e} of their size",
        turns=turns,
    )


def against_full(
    case: Case, device: torch.device, *, size_hw: tuple[int, int] = (480, 640), images: int = 2, turns: int = 3
) -> Comparison:
    """The same against fine-tuning of all parts."""
    samples = drawn_samples(images, size_hw, instances=8, num_labels=len(CLASSES))
    model, _ = _pair(case, case.level, samples, device)
    _, full = _pair(case, "none", samples, device)
    return in_turn(
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
    """A whole run of ResNet-18 with a frozen backbone: features computed and kept, ``epochs`` of the head, evaluations."""
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
        own = copy.deepcopy(model).train()
        optimizer = build_optimizer(own, lr=0.01)
        images, targets = zip(*train, strict=True)
        features = own.frozen_features([image.to(device) for image in images])
        val_images, _ = zip(*val, strict=True)
        kept = own.eval().frozen_features([image.to(device) for image in val_images])
        own.train()
        losses = []
        for epoch in range(epochs):
            loader = _Batches([*zip(features, targets, strict=True)], 16)
            losses.append(train_one_epoch(own, optimizer, loader, device, epoch + 1, seed=0).losses["loss"])  # type: ignore[arg-type]
            own.eval()(kept)
            own.train()
        return losses

    def theirs() -> list[float]:
        own = copy.deepcopy(baseline)
        optimizer = torch.optim.SGD(own.fc.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        losses = []
        for _ in range(epochs):
            own.eval()  # so that norm statistics stay, as they do here
            total = 0.0
            for begin in range(0, len(train), 16):
                batch = train[begin : begin + 16]
                pixels = torch.stack([model.normalise(image.to(device)) for image, _ in batch])
                index = torch.stack([target["class_index"] for _, target in batch]).to(device)
                loss = functional.cross_entropy(own(pixels), index)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(batch)
            losses.append(total / len(train))
            with torch.no_grad():
                own(torch.stack([model.normalise(image.to(device)) for image, _ in val]))
        return losses

    difference = _checked(ours()[:1], theirs()[:1])
    return in_turn(
        f"ResNet-18, backbone frozen, {size} px, all of a run of {epochs} epochs",
        ours,
        theirs,
        baseline="torchvision's model and loop, the backbone frozen",
        target=8,
        note=f"first losses differ by {difference:.1e} of their size; one view of each image on both sides",
        turns=turns,
    )


def _pair(case: Case, level: str, samples: list[tuple[Tensor, Target]], device: torch.device) -> tuple[Any, Any]:
    """Ours, and torchvision's with the same weights and the same parts frozen."""
    torch.manual_seed(0)
    # norm layers as with pretrained weights
    description = replace(describe(case.arch, CLASSES, weights="none"), norm="frozen", norm_eps=1e-5)
    model: Any = build_model(description).to(device)
    state = model.state_dict()
    for name, buffer in state.items():  # random weights give maps that grow from layer to layer
        if name.endswith("running_var"):
            buffer.fill_(3.0)
    model.load_state_dict(state)
    baseline = baseline_model(model)
    for one in (model, baseline):
        one.rpn = SkilledRpn(one.rpn, samples)
    freeze(model, level)
    for name in model.frozen_modules:
        baseline.get_submodule(name).requires_grad_(False)
        if name == "rpn":
            baseline.rpn.eval()  # else it would have losses that teach nothing
    return model, baseline


def _restart(model: Any) -> None:
    """The same samples again."""
    model.rpn.turn = 0


class _Batches:
    """A loader of what is in memory, in its order."""

    def __init__(self, samples: Sequence[tuple[Any, Any]], batch_size: int) -> None:
        self.samples, self.batch_size, self.sampler = samples, batch_size, None

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        for begin in range(0, len(self.samples), self.batch_size):
            yield tuple(zip(*self.samples[begin : begin + self.batch_size], strict=True))


def _checked(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How much two losses differ, as a share."""
    difference = max(abs(one - other) / abs(other) for one, other in zip(ours, theirs, strict=True))
    if not difference <= TOLERANCE:
        raise DataError(f"losses {list(ours)} of ours and {list(theirs)} of the baseline are not of equal work")
    return difference


def _cached_epoch(model: Any, samples: list[tuple[Tensor, Target]], device: torch.device) -> Callable[[], list[float]]:
    """Epochs on features, computed here and once, and kept in float16 as a run keeps them."""
    level = model.levels()[0]
    _restart(model)
    kept = [
        model.frozen_features([image.to(device)], level)[0].to("cpu").with_maps(torch.float16) for image, _ in samples
    ]
    batches = [(features, target) for features, (_, target) in zip(kept, samples, strict=True)]
    optimizer = build_optimizer(model, lr=LR)

    def epoch() -> list[float]:
        _restart(model)
        return [train_one_epoch(model, optimizer, _Batches(batches, BATCH), device, 1, seed=0).losses["loss"]]  # type: ignore[arg-type]

    return epoch


def _baseline_epoch(
    baseline: Any, samples: list[tuple[Tensor, Target]], device: torch.device
) -> Callable[[], list[float]]:
    """An epoch of the loop that torchvision's users write."""
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
