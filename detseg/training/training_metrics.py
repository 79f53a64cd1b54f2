"""Metrics of a run without a validation split: the training loss selects the best weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from detseg.engine.train import EpochStats
from detseg.short_text import values
from detseg.training.metrics_log import Row, train_values


@dataclass(frozen=True)
class TrainingMetrics:
    """Training losses and accuracies of one epoch, with the interface of validation metrics.

    Attributes:
        epoch: the epoch, from 1.
        values: "train_loss", "train_<term>" and "train_accuracy", as in metrics.jsonl.
    """

    epoch: int
    values: dict[str, float | None]

    def __repr__(self) -> str:
        return f"TrainingMetrics(epoch {self.epoch}: {values(self.values)})"

    @classmethod
    def of(cls, epoch: int, stats: EpochStats) -> TrainingMetrics:
        """Return the metrics of an epoch (from 0) from its statistics."""
        return cls(epoch + 1, train_values(stats))

    @classmethod
    def from_row(cls, row: Row) -> TrainingMetrics:
        """Return the metrics of an epoch from its row of metrics.jsonl."""
        return cls(row["epoch"], {name: value for name, value in row.items() if name.startswith("train_")})

    def best(self) -> float:
        """Return the negative training loss: the best epoch is that of the lowest."""
        loss = self.values.get("train_loss")
        return float("-inf") if loss is None else -loss

    def scalars(self) -> dict[str, float | None]:
        """Return nothing: the row of the epoch has these values already."""
        return {}

    def lines(self) -> list[str]:
        """Return lines for the terminal: the loss, then its terms and the accuracies."""
        names = [name for name, value in self.values.items() if value is not None and name != "train_loss"]
        width, loss = max(map(len, names), default=0), self.values.get("train_loss")
        first = "training loss undefined" if loss is None else f"training loss {loss:.4f}"
        return [first, *(f"  {name:{width}}  {self.values[name]:.4f}" for name in names)]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        return {"epoch": self.epoch, "first_epoch": 1, **self.values}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TrainingMetrics:
        """Return the metrics of a metrics.json."""
        return cls.from_row(content)
