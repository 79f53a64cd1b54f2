"""The card of starting weights: what is in the file, how it was made, what it scored, what it is not for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.runtime.files import write_text
from detseg.runtime.machine import machine
from detseg.training.metrics_log import Row, minutes_of

LICENCE = "Apache-2.0, as the project's code: everything was drawn and computed by it, from nobody's images"
OWN_LICENCE = "that of the data that they were trained on allows; name it before you pass them on"


def write_card(
    weights: Path,
    *,
    title: str,
    data: str,
    command: str,
    licence: str,
    rows: list[Row],
    device: torch.device,
    start: Path | None = None,
) -> Path:
    """Write ``card.md`` beside ``weights``; returns its path.

    The card of the weights that these began with is appended, so that the whole history is told.

    Args:
        weights: a checkpoint of this project.
        title: what they are.
        data: what they were trained on.
        command: what makes them again.
        rows: of the run's metrics.jsonl.
        device: that they were trained on.
        start: the file that they began with; None for random numbers.
    """
    checkpoint = load_checkpoint(weights)
    numbers = sum(tensor.numel() for tensor in checkpoint.weights.values())
    facts = {
        "architecture": checkpoint.model["arch"],
        "file": f"{weights.name}, {weights.stat().st_size / 1e6:.2f} MB, {numbers:,} numbers in float16",
        "sha256": _sha256(weights),
        "trained on": data,
        "command": f"`{command}`",
        "began with": "random numbers" if start is None else f"{start.name}, sha256 {_sha256(start)}",
        "updates": f"{checkpoint.position.step:,}",
        "cost": f"{minutes_of(rows):.0f} minutes on {machine(device)}",
        "scores": _scores(rows),
        "licence": licence,
    }
    lines = [f"# {title}", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items())]
    if start is not None and (before := start.with_name("card.md")).is_file():
        lines += ["", f"## {start.name}, which it began with", "", *before.read_text("utf-8").splitlines()[2:]]
    path = weights.with_name("card.md")
    write_text(path, "\n".join(lines) + "\n")
    return path


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _scores(rows: list[Row]) -> str:
    """The last epoch's numbers, which are those of the weights."""
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "keypoints_AP", "accuracy")
    scored = next((row for row in reversed(rows) if any(name in row for name in names)), {})
    shown = [f"{name} {scored[name]:.3f}" for name in names if scored.get(name) is not None]
    return ", ".join(shown) or "none"
