"""Find the classes of starting weights: the class of each row of their output layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detseg.models.architectures import MODELS
from detseg.models.description import ModelDescription
from detseg.models.weights.class_transfer import BACKGROUND
from detseg.models.weights.published import file_name


@dataclass(frozen=True)
class SourceClasses:
    """The classes of a set of weights.

    Attributes:
        names: one for each row of the output layers; ``BACKGROUND`` for the background and for gaps.
        coco: whether they are COCO's classes.
    """

    names: tuple[str, ...]
    coco: bool = False


def classes_of(description: ModelDescription) -> SourceClasses:
    """Return the classes of a model of this project."""
    background = () if description.task == "classify" else (BACKGROUND,)
    return SourceClasses((*background, *description.class_map.names))


def classes_of_published_file(name: str) -> SourceClasses | None:
    """Return COCO's classes if ``name`` is the name of a file that torchvision publishes; None for other names."""
    published = [architecture.coco for architecture in MODELS.values() if architecture.coco is not None]
    return next((published_classes(weights) for weights in published if file_name(weights.url) == name), None)


def published_classes(weights: Any) -> SourceClasses:
    """Return the classes of torchvision's weights: rows are COCO's category ids 1..90, ten of which are unused; the
    keypoint weights have one."""
    names = weights.meta["categories"]
    rows = tuple(BACKGROUND if row == 0 or name == "N/A" else name for row, name in enumerate(names))
    return SourceClasses(rows, coco=True)
