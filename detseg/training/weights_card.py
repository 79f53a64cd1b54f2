"""Write the model card of pretrained weights: content of the file, training data, command, scores, licence."""

from __future__ import annotations

from pathlib import Path

import torch

from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.models.weights.starting_weights import Origin
from detseg.options.defaults import BUNDLED
from detseg.runtime.checksum import file_checksum
from detseg.runtime.files import write_text
from detseg.runtime.machine import describe_machine
from detseg.training.metrics_log import Row, minutes_of

LICENCE = "Apache-2.0, as the project's code: all training images were rendered by it, without images of others"
OWN_LICENCE = "as the licence of the training data allows; state it before you share the weights"

PUBLISHED_LICENCE = "starting weights of torchvision, under their own terms"


def starting_licence(weights: str | None) -> str:
    """The licence of the starting weights that the option ``weights`` of a run names; empty if it is not known."""
    known = {BUNDLED: LICENCE, "coco": PUBLISHED_LICENCE, "imagenet": PUBLISHED_LICENCE, "none": "no starting weights"}
    return known.get(weights or "", "")


def write_card(
    weights: Path,
    *,
    title: str,
    data: str,
    command: str,
    licence: str,
    rows: list[Row],
    device: torch.device,
    start: Origin,
) -> Path:
    """Write ``card.md`` beside ``weights``; returns its path.

    The card of the starting weights is appended, so that the card contains the whole history.

    Args:
        weights: a checkpoint of this project.
        title: of the card.
        data: the training data.
        command: reproduces the weights.
        licence: of the weights.
        rows: of the run's metrics.jsonl.
        device: used for training.
        start: where the starting weights came from.
    """
    checkpoint = load_checkpoint(weights)
    parameters = sum(tensor.numel() for tensor in checkpoint.weights.values())
    facts = {
        "architecture": checkpoint.model["arch"],
        "file": f"{weights.name}, {weights.stat().st_size / 1e6:.2f} MB, {parameters:,} numbers in float16",
        "sha256": file_checksum(weights),
        "trained on": data,
        "command": f"`{command}`",
        "starting weights": start.summary,
        "steps": f"{checkpoint.position.step:,}",
        "cost": f"{minutes_of(rows):.0f} minutes on {describe_machine(device)}",
        "scores": _scores(rows),
        "licence": licence,
    }
    lines = [f"# {title}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    if start.path is not None and (before := start.path.with_name("card.md")).is_file():
        lines += ["", f"## {start.path.name}, the starting weights", "", *before.read_text("utf-8").splitlines()[2:]]
    path = weights.with_name("card.md")
    write_text(path, "\n".join(lines) + "\n")
    return path


def _scores(rows: list[Row]) -> str:
    """Return the metrics of the last evaluated epoch, which are those of the weights."""
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "keypoints_AP", "accuracy")
    evaluated = next((row for row in reversed(rows) if any(name in row for name in names)), {})
    shown = [f"{name} {evaluated[name]:.3f}" for name in names if evaluated.get(name) is not None]
    return ", ".join(shown) or "none"
