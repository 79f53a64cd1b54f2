"""Find the classes of starting weights: the class of each row of their output layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detseg.models.architectures import MODELS
from detseg.models.build import architecture_of
from detseg.models.weights.class_transfer import BACKGROUND
from detseg.models.weights.published import file_name
from detseg.models.weights.state_files import read_description


@dataclass(frozen=True)
class SourceClasses:
    """The classes of a set of weights.

    Attributes:
        names: one for each row of the output layers; ``BACKGROUND`` for the background and for gaps.
        coco: whether they are COCO's classes.
    """

    names: tuple[str, ...]
    coco: bool = False


def source_classes(weights: str, arch: str) -> SourceClasses | None:
    """Return the classes of ``weights``, as accepted by ``load_weights`` for a model of ``arch``; None if unknown.

    COCO weights are recognized by the name "coco" and, for a path, by the name of the published file. A checkpoint of
    this project contains its class names.

    Raises:
        DataError, OSError: as ``read_description``.
    """
    if weights == "coco":
        return _published(architecture_of(arch).coco)
    if weights in ("imagenet", "none"):
        return None
    for architecture in MODELS.values():
        if architecture.coco is not None and file_name(architecture.coco.url) == Path(weights).name:
            return _published(architecture.coco)
    description = read_description(weights)
    if description is None:
        return None
    background = () if description.task == "classify" else (BACKGROUND,)
    return SourceClasses((*background, *description.class_map.names))


def _published(weights: Any) -> SourceClasses:
    """torchvision's rows are COCO's category ids 1..90, ten of which are unused; the keypoint weights have one."""
    names = weights.meta["categories"]
    rows = tuple(BACKGROUND if row == 0 or name == "N/A" else name for row, name in enumerate(names))
    return SourceClasses(rows, coco=True)
