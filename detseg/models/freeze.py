"""Freeze parts of a model, and report which parts are trainable."""

from __future__ import annotations

from detseg.errors import DataError
from detseg.models.architectures import Architecture
from detseg.models.base import FreezableModel, Part
from detseg.old_names import freeze_level as current_freeze_level

LEVELS = ("none", "stem", "backbone", "neck", "rpn")
"""Each level freezes one part more than the level before it. The stem is everything up to stride 4 (conv1, bn1 and
layer1 of a ResNet, which torchvision also freezes by default; the first two stages of a MobileNet), the backbone is all
stages, the neck is the FPN."""


def freeze_levels(architecture: Architecture) -> tuple[str, ...]:
    """Return the levels that models of an architecture have."""
    if architecture.task == "classify":
        return LEVELS[: LEVELS.index("backbone") + 1]
    return LEVELS if architecture.family == "rcnn" else LEVELS[: LEVELS.index("neck") + 1]


def freeze(model: FreezableModel, level: str) -> None:
    """Freeze the parts up to ``level`` and make the others trainable. ``model.train()`` does not undo it.

    A frozen part gets no gradients and its norm statistics are fixed. A frozen RPN uses its eval-mode settings and has
    no loss. A classifier has the levels none, stem and backbone (everything except its head).

    Raises:
        DataError: the level is unknown, or the model has no such part.
    """
    level = current_freeze_level(level)
    parts = model.parts()
    levels = [name for name in LEVELS if name == "none" or name in parts]
    if level not in levels:
        raise DataError(
            f"freeze level {level!r} does not exist for {model.description.arch}; known levels: {', '.join(levels)}"
        )
    frozen = levels[1 : levels.index(level) + 1]
    model.set_frozen(module for part in frozen for module in parts[part])


def set_trainable_layers(model: FreezableModel, layers: int) -> None:
    """Freeze all but the last ``layers`` stages of the backbone, as torchvision's ``trainable_backbone_layers``.

    ResNets have 5 (layer4, layer3, layer2, layer1, then conv1 with bn1), MobileNets 5 or 6. Norm statistics of
    frozen stages are fixed; torchvision relies on FrozenBatchNorm2d for that. Everything after the backbone is
    trainable.

    Raises:
        DataError: ``layers`` is negative or larger than the number of stages.
    """
    stages = model.backbone_stages()
    if not 0 <= layers <= len(stages):
        raise DataError(f"trainable layers {layers}: the backbone of {model.description.arch} has 0 to {len(stages)}")
    model.set_frozen(module for stage in stages[: len(stages) - layers] for module in stage)


def part_table(model: FreezableModel) -> list[Part]:
    """Return one row for each part, in order of computation: number of parameters and of trainable ones."""
    totals = {name: [0, 0] for name in model.parts()}
    for name, parameter in model.named_parameters():
        counts = totals[model.part_of(name)]  # each parameter once, although modules of a part may be nested
        counts[0] += parameter.numel()
        counts[1] += parameter.numel() if parameter.requires_grad else 0
    return [Part(name, parameters, trainable) for name, (parameters, trainable) in totals.items()]
