"""Write and read metrics.jsonl (one row per epoch), and format a row for the terminal. Epochs count from 1 here.

A row states it: ``"first_epoch": 1``. Rows without it are of an earlier version, in which the first epoch was 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from detseg.engine.evaluate import Metrics
from detseg.engine.train import EpochStats
from detseg.runtime.files import write_text

Row = dict[str, Any]

SHOWN_FIELDS = 6
"""Maximum number of label fields whose values are printed separately; metrics.jsonl contains all."""


def row(
    epoch: int,
    stats: EpochStats,
    val_losses: dict[str, float],
    metrics: Metrics | None,
    optimizer: torch.optim.Optimizer,
    seconds: float,
    details: bool = False,
) -> Row:
    """Return the row of one epoch (from 0) in metrics.jsonl, where it counts from 1.

    Args:
        details: also the learning rate and the gradient norm of each part.
    """
    groups = {group.get("name", "").partition(",")[0]: group["lr"] for group in optimizer.param_groups}
    norms = stats.gradient_norms if details else {}
    rates = {f"lr_{name.replace(' ', '_')}": lr for name, lr in groups.items()} if details else {}
    return {
        "epoch": epoch + 1,
        "first_epoch": 1,
        "lr": optimizer.param_groups[-1]["lr"],
        "seconds": round(seconds, 3),
        "images_per_second": round(stats.images / stats.seconds, 2),
        **train_values(stats),
        **{f"val_{name}": value for name, value in val_losses.items()},
        **(metrics.scalars() if metrics else {}),
        **rates,
        **{f"gradient_norm_{part.replace(' ', '_')}": norm for part, norm in norms.items()},
    }


def train_values(stats: EpochStats) -> dict[str, float | None]:
    """Return the training losses and accuracies as in metrics.jsonl: "train_loss", "train_accuracy", ..."""
    return {f"train_{name}": value for name, value in (stats.losses | stats.accuracies).items()}


def line(row: Row, epochs: int, is_best: bool) -> str:
    """Return the terminal line of one epoch."""
    names = ("bbox_AP", "bbox_AP50", "segm_AP", "segm_AP50", "keypoints_AP", "keypoints_AP50", "accuracy")
    numbers = ", ".join(f"{name} {row[name]:.3f}" for name in names if row.get(name) is not None)
    numbers += _by_field(row, "accuracy_")
    val = f"val loss {row['val_loss']:.3f}" if "val_loss" in row else ""
    loss = f"loss {row['train_loss']:.3f}{_by_field(row, 'train_loss_')}" if "train_loss" in row else "no update"
    shown = [loss, _train_accuracy(row), val, numbers, f"{row['seconds']:.0f} s{' *' if is_best else ''}"]
    return f"epoch {row['epoch']}/{epochs}: {', '.join(part for part in shown if part)}"


def _train_accuracy(row: Row) -> str:
    """Return the training accuracy, with label fields their mean and each of them; "" for a detector."""
    values = [value for key, value in row.items() if key == "train_accuracy" or key.startswith("train_accuracy_")]
    numbers = [value for value in values if value is not None]
    return f"train accuracy {sum(numbers) / len(numbers):.3f}{_by_field(row, 'train_accuracy_')}" if numbers else ""


def _by_field(row: Row, prefix: str) -> str:
    """Return the values of the label fields, `` (colour 0.312, shape 0.480)``; "" without fields, or with too many."""
    fields = [key.removeprefix("train_accuracy_") for key in row if key.startswith("train_accuracy_")]
    shown = [f"{name} {row[prefix + name]:.3f}" for name in fields if row.get(prefix + name) is not None]
    return f" ({', '.join(shown)})" if shown and len(fields) <= SHOWN_FIELDS else ""


def minutes_of(rows: list[Row]) -> float:
    """Return the wall minutes of training and evaluation in these epochs, also of epochs before a resume."""
    return float(sum(row["seconds"] for row in rows)) / 60


def read_rows(path: Path, epochs: int) -> list[Row]:
    """Read the rows of the first ``epochs`` epochs of a metrics.jsonl; empty if the file does not exist.

    Rows in which the first epoch is 0 are converted.
    """
    if not path.is_file():
        return []
    rows = [_from_one(json.loads(text)) for text in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["epoch"] <= epochs]


def _from_one(row: Row) -> Row:
    """Return a row whose epochs count from 1."""
    return (
        row
        if "first_epoch" in row
        else {"epoch": row["epoch"] + 1, "first_epoch": 1}
        | {name: value for name, value in row.items() if name != "epoch"}
    )


def write_rows(path: Path, rows: list[Row]) -> None:
    """Rewrite the file with all rows, atomically: an interrupted write never leaves an incomplete line."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
