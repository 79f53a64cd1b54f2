"""The starting weights that come with this package: found without a network, and checked before they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from detseg.errors import DataError

BUNDLED = "bundled"
"""Their name as ``--weights``."""

BUNDLED_ARCH = "maskrcnn_mobilenet_v3_large_fpn_slim"

FITTING = {
    "segment": BUNDLED_ARCH,
    "detect": "fasterrcnn_mobilenet_v3_large_fpn_slim",
    "keypoints": "keypointrcnn_mobilenet_v3_large_fpn_slim",
    "classify": "mobilenet_v3_large",
}
"""Task -> the architecture that takes the most of them."""

CLASSIFIER_STAGES = 3
"""Stages of the backbone, down to stride 8, that a classifier takes of them. The later ones were trained to find shapes and
are worse than none where whole images are told apart (measured: README, "Measured")."""

SHA256 = "84070594701b2c14f194983d3d3a8c1e1c0b3407d030146e4a978972381a2dab"
"""Of the file; the card beside it says how it was made."""


def stages_taken(weights: str | None, task: str) -> int | None:
    """How many stages of the backbone a model for ``task`` takes of ``weights``; None for all."""
    return CLASSIFIER_STAGES if weights == BUNDLED and task == "classify" else None


def bundled_path() -> Path:
    """The weights file inside the installed package.

    Raises:
        DataError: it is missing or was changed.
    """
    path = Path(__file__).resolve().parents[2] / "weights" / f"{BUNDLED_ARCH}.safetensors"
    if not path.is_file():
        raise DataError(f"{path} is missing, though it comes with this package; install detseg anew")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise DataError(f"{path} was changed or corrupt: its sha256 is {found}, not {SHA256}; install detseg anew")
    return path
