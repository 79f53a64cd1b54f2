"""The checkpoints of a run: when they are written, and what happens when one cannot be."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from detseg.checkpoints.checkpoint import Position, save_checkpoint
from detseg.checkpoints.rotation import checkpoint_path, rotate
from detseg.engine.ema import Ema, is_finite
from detseg.engine.precision import Precision
from detseg.engine.train import EpochTotals
from detseg.errors import DataError

PAUSES = (1.0, 4.0, 10.0)
"""Seconds before each new try to write the last checkpoint of a run."""


@dataclass(frozen=True)
class CheckpointInterval:
    """How often: every ``steps`` updates, or when ``minutes`` have gone by."""

    steps: int = 0
    minutes: float = 0.0

    @classmethod
    def parse(cls, text: str) -> CheckpointInterval:
        """``500`` is steps, ``10m`` minutes, ``0`` only after each epoch; else DataError."""
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)m", text.strip())
        if not found:
            raise DataError(f"--checkpoint-every {text}: give steps such as 500, or minutes such as 10m")
        return cls(steps=int(found[1] or 0), minutes=float(found[2] or 0))


class CheckpointManager:
    """Writes ``last.safetensors`` of a run and keeps the ones before it.

    A checkpoint that cannot be written (disk full, quota, I/O error) costs the run nothing: the last good one stays,
    one line says so, and the next is tried when it is due. Only the one that ends the run is insisted on.
    """

    def __init__(
        self,
        folder: Path,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        every: CheckpointInterval,
        keep: int,
        ema: Ema | None = None,
        precision: Precision | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.every, self.keep = every, keep
        self.ema, self.precision, self.data = ema, precision, data
        self._saved_at = time.monotonic()

    def is_due(self, position: Position) -> bool:
        """Whether a checkpoint is to be written in the middle of the epoch."""
        if self.every.steps:
            return position.step % self.every.steps == 0
        return bool(self.every.minutes) and time.monotonic() - self._saved_at >= 60 * self.every.minutes

    def check(self, position: Position) -> None:
        """Raise FloatingPointError if a weight is not finite: no loss need show that."""
        if not is_finite(self.model):
            names = [name for name, tensor in self.model.state_dict().items() if not bool(tensor.isfinite().all())]
            raise FloatingPointError(
                f"step {position.step}: {names[0]} is not finite, though no loss showed it; nothing was saved. "
                f"Lower --lr, and go on from the last checkpoint with --resume {self.folder}"
            )

    def save(self, position: Position, totals: Sequence[EpochTotals], *, insist: bool = False) -> None:
        """Write the state of the run; say so where that does not work.

        Args:
            sums: of each process.
            insist: try a few times, then raise.

        Raises:
            OSError: it cannot be written, with ``insist``.
            FloatingPointError: a weight is not finite; the checkpoint before is left as it is.
        """
        self.check(position)
        for pause in (*PAUSES, None) if insist else (None,):
            try:
                self._write(position, totals)
            except OSError as error:
                if pause is None and insist:
                    raise
                again = f"again in {pause:g} s" if pause else "the next one will be tried when it is due"
                tqdm.write(
                    f"warning: step {position.step} was not saved ({error}); the last checkpoint is whole, {again}"
                )
                time.sleep(pause or 0)
            else:
                self._saved_at = time.monotonic()
                return

    def _write(self, position: Position, totals: Sequence[EpochTotals]) -> None:
        save_checkpoint(
            checkpoint_path(self.folder, 0),
            self.model,
            optimizer=self.optimizer,
            position=position,
            ema=self.ema,
            totals=totals,
            precision=self.precision,
            data=self.data,
            before_replacing=lambda: rotate(self.folder, self.keep),
        )
