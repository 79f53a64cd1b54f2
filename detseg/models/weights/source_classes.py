"""Which classes starting weights know: what each row of their last layers stands for."""

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
    """The classes of some weights.

    Attributes:
        names: one for each row of their last layers; ``BACKGROUND`` for the background and for gaps.
        coco: they are COCO's.
    """

    names: tuple[str, ...]
    coco: bool = False


def source_classes(weights: str, arch: str) -> SourceClasses | None:
    """The classes of ``weights``, a value that ``load_weights`` takes for a model of ``arch``; None if nobody knows.

    COCO weights are known under their name "coco" and, as a path, by the name of the published file. A checkpoint of
    this project names its classes itself.

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
    """torchvision's rows are COCO's category ids 1..90, of which ten are not in use; the keypoint weights have one."""
    names = weights.meta["categories"]
    rows = tuple(BACKGROUND if row == 0 or name == "N/A" else name for row, name in enumerate(names))
    return SourceClasses(rows, coco=True)
