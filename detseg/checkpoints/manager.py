"""Manage the checkpoints of a run: when they are written, and what happens when writing fails."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detseg.checkpoints.checkpoint import Position, save_checkpoint
from detseg.checkpoints.rotation import rotate
from detseg.engine.ema import Ema, is_finite
from detseg.engine.precision import Precision
from detseg.engine.train import EpochTotals
from detseg.errors import DataError
from detseg.runtime.files import WriteError
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.run_folder import RunFolder

PAUSES = (1.0, 4.0, 10.0)
"""Seconds to wait before each retry of writing the final checkpoint of a run."""


@dataclass(frozen=True)
class CheckpointInterval:
    """Interval between checkpoints: ``steps`` optimizer updates, or ``minutes``; both 0: only after each epoch."""

    steps: int = 0
    minutes: float = 0.0

    @classmethod
    def parse(cls, text: str) -> CheckpointInterval:
        """Parse ``500`` (steps), ``10m`` (minutes) or ``0`` (only after each epoch).

        Raises:
            DataError: anything else.
        """
        match = re.fullmatch(r"([0-9]{1,9})|([0-9]{1,9}(?:\.[0-9]{1,9})?)m", text.strip())
        if not match:
            raise DataError(f"--checkpoint-every {text}: use steps such as 500, or minutes such as 10m")
        return cls(steps=int(match[1] or 0), minutes=float(match[2] or 0))


class CheckpointManager:
    """Writes ``last.safetensors`` of a run and keeps the previous checkpoints.

    If a checkpoint cannot be written (disk full, quota, I/O error), the run continues: the last valid one stays, a
    warning is reported, and the next one is written when it is due. Only the final checkpoint of a run is retried.
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
        reporter: Reporter | None = None,
    ) -> None:
        self.folder, self.model, self.optimizer = folder, model, optimizer
        self.every, self.keep = every, keep
        self.ema, self.precision, self.data = ema, precision, data
        self.reporter = reporter or terminal()
        self._saved_at = time.monotonic()

    def is_due(self, position: Position) -> bool:
        """Whether a checkpoint should be written now, in the middle of an epoch."""
        if self.every.steps:
            return position.step % self.every.steps == 0
        return bool(self.every.minutes) and time.monotonic() - self._saved_at >= 60 * self.every.minutes

    def check(self, position: Position) -> None:
        """Raise FloatingPointError if a weight is not finite; the losses do not always show it."""
        if not is_finite(self.model):
            names = [name for name, tensor in self.model.state_dict().items() if not bool(tensor.isfinite().all())]
            raise FloatingPointError(
                f"step {position.step}: {names[0]} is not finite, although all losses were; nothing was saved. "
                "Start a new run with a lower --lr"
            )

    def save(self, position: Position, totals: Sequence[EpochTotals], *, retry: bool = False) -> None:
        """Write the state of the run; report a warning if that fails.

        Args:
            totals: totals of the current epoch, one for each process.
            retry: retry a few times, then raise.

        Raises:
            OSError: the checkpoint cannot be written, with ``retry``.
            FloatingPointError: a weight is not finite; the previous checkpoint is not changed.
        """
        self.check(position)
        for pause in (*PAUSES, None) if retry else (None,):
            try:
                self._write(position, totals)
            except OSError as error:
                if pause is None and retry:
                    raise
                next_try = f"retrying in {pause:g} s" if pause else "the next one will be written when it is due"
                problem = error.problem if isinstance(error, WriteError) else str(error)
                has_last = RunFolder(self.folder).last.is_file()
                kept = "the previous checkpoint is intact" if has_last else "there is no checkpoint yet"
                self.reporter.warning(f"warning: step {position.step} was not saved ({problem}); {kept}, {next_try}")
                time.sleep(pause or 0)
            else:
                self._saved_at = time.monotonic()
                return

    def _write(self, position: Position, totals: Sequence[EpochTotals]) -> None:
        save_checkpoint(
            RunFolder(self.folder).last,
            self.model,
            optimizer=self.optimizer,
            position=position,
            ema=self.ema,
            totals=totals,
            precision=self.precision,
            data=self.data,
            before_replacing=lambda: rotate(self.folder, self.keep),
        )
