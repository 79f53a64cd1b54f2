"""Which parts learn."""

from __future__ import annotations

from detseg.errors import DataError
from detseg.models.base import FreezableModel, Part
from detseg.old_names import freeze_level as current_freeze_level

LEVELS = ("none", "stem", "backbone", "neck", "rpn")
"""Each level freezes what the one before it does, and one part more. The stem is everything down to stride 4 (conv1,
bn1 and layer1 of a ResNet, which torchvision freezes by default too; the first two stages of a MobileNet), the backbone all
stages, the neck the FPN."""


def freeze(model: FreezableModel, level: str) -> None:
    """Freeze the parts up to ``level`` and wake the others. Lasts through ``model.train()``.

    A frozen part gets no gradients and keeps its norm statistics. A frozen RPN proposes by its eval-mode settings and
    has no loss. A classifier has the levels none, stem and backbone (all but its head).

    Raises:
        DataError: the level is not known, or the model has no such part.
    """
    level = current_freeze_level(level)
    parts = model.parts()
    known = [name for name in LEVELS if name == "none" or name in parts]
    if level not in known:
        raise DataError(
            f"freeze level {level!r} is not known for {model.description.arch}; known are {', '.join(known)}"
        )
    frozen = known[1 : known.index(level) + 1]
    model.set_frozen(module for part in frozen for module in parts[part])


def set_trainable_layers(model: FreezableModel, layers: int) -> None:
    """Freeze all but the last ``layers`` stages of the backbone, as torchvision's ``trainable_backbone_layers``.

    ResNets have 5 (layer4, layer3, layer2, layer1, then conv1 with bn1), MobileNets 5 or 6. Norm statistics of
    frozen stages are fixed, which torchvision leaves to FrozenBatchNorm2d. Everything after the backbone learns.

    Raises:
        DataError: ``layers`` is negative or more than there are.
    """
    stages = model.backbone_stages()
    if not 0 <= layers <= len(stages):
        raise DataError(f"trainable layers {layers}: the backbone of {model.description.arch} has 0 to {len(stages)}")
    model.set_frozen(module for stage in stages[: len(stages) - layers] for module in stage)


def part_table(model: FreezableModel) -> list[Part]:
    """One row for each part, in the order of the computation: parameters, and how many of them learn."""
    totals = {name: [0, 0] for name in model.parts()}
    for name, parameter in model.named_parameters():
        counts = totals[model.part_of(name)]  # each once, although one module of a part may lie inside another
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() if parameter.requires_grad else 0
    return [Part(name, parameters, trainable) for name, (parameters, trainable) in totals.items()]
