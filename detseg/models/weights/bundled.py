"""Starting weights included in this package: available offline, and verified before use."""

from __future__ import annotations

import hashlib
from pathlib import Path

from detseg.errors import DataError
from detseg.options.defaults import BUNDLED, FITTING

__all__ = ["BUNDLED", "BUNDLED_ARCH", "FITTING", "read_bundled", "stages_to_load"]

BUNDLED_ARCH = FITTING["segment"]

CLASSIFIER_STAGES = 3
"""Backbone stages, up to stride 8, that a classifier loads. The later ones were trained to detect shapes; for the
classification of whole images they are worse than random weights (figures: detseg/benchmarks/README.md)."""

SHA256 = "84070594701b2c14f194983d3d3a8c1e1c0b3407d030146e4a978972381a2dab"
"""Checksum of the file; the model card next to it describes its training."""


def stages_to_load(weights: str | None, task: str) -> int | None:
    """Return how many backbone stages of ``weights`` a model for ``task`` loads; None for all."""
    return CLASSIFIER_STAGES if weights == BUNDLED and task == "classify" else None


def read_bundled() -> tuple[Path, bytes]:
    """Return the path and the verified content of the weights file.

    Raises:
        DataError: the file is missing or was changed.
    """
    path = Path(__file__).resolve().parents[2] / "weights" / f"{BUNDLED_ARCH}.safetensors"
    if not path.is_file():
        raise DataError(f"{path} is missing, although it is part of this package; reinstall detseg")
    content = path.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != SHA256:
        raise DataError(f"{path} was changed or is corrupt: its sha256 is {checksum}, not {SHA256}; reinstall detseg")
    return path, content
