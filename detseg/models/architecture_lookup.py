"""Look up an architecture by its name; state which names are known, and which have published COCO weights."""

from __future__ import annotations

from detseg.errors import DataError
from detseg.models.architectures import MODELS, Architecture
from detseg.models.own_classifier import OWN
from detseg.models.timm_backbone import FAMILIES, LIST_ALL, PREFIX, timm_architecture
from detseg.nearest import did_you_mean


def architecture_of(arch: str) -> Architecture:
    """Return the architecture with this name; DataError if it, or its timm backbone, does not exist."""
    architecture = MODELS.get(arch) or timm_architecture(arch)
    if architecture is not None:
        return architecture
    if arch == OWN:
        raise DataError(
            "a custom module must be built by your code: load(path, build=...), see OwnClassifier.from_saved"
        )
    if arch in FAMILIES:
        raise DataError(f"model {arch!r} needs a backbone, such as --backbone {PREFIX}convnext_atto")
    close = did_you_mean(arch, (*MODELS, *FAMILIES), most=3) or "."
    raise DataError(f"model {arch!r} is unknown{close} {LIST_ALL}")


def no_coco_weights(arch: str) -> str:
    """Return the error message for an architecture without published COCO weights."""
    task = architecture_of(arch).task
    others = [name for name, other in MODELS.items() if other.coco is not None and other.task == task]
    parts = "all layers except the last" if task == "classify" else "the backbone only"
    alternatives = f"; models for this task that have them: {', '.join(others)}" if others else ""
    return f"{arch} has no published COCO weights{alternatives}. Use --weights imagenet ({parts}), none, or a file"
