"""Keep a run within its minutes: the number of epochs that fits, and one cut if epochs take longer than measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec

from detseg.errors import DataError, in_file
from detseg.runtime.files import write_json
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import duration

TOLERANCE_SHARE, TOLERANCE_SECONDS = 0.1, 20.0
"""A run may take this share of its minutes longer, or these seconds if they are more."""

MARGIN = 0.03
"""Share of the time for the epochs that is not planned, because no two epochs take the same time."""


class EpochSeconds(NamedTuple):
    """Wall seconds of one epoch of training, of one evaluation, and of the checkpoint at the end of the epoch."""

    training: float
    evaluation: float
    saving: float


@dataclass(frozen=True)
class Cut:
    """The one reduction of the number of epochs; stored in the run folder, so that a resumed run repeats it.

    Attributes:
        after: number of epochs that were trained when it was decided.
        epochs: of the run from then on.
    """

    after: int
    epochs: int

    def write(self, folder: Path) -> None:
        """Write the file of a run."""
        write_json(RunFolder(folder).cut, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Cut | None:
        """Return the cut of a run; None if there was none."""
        path = RunFolder(folder).cut
        if not path.is_file():
            return None
        with in_file(path):
            return msgspec.convert(json.loads(path.read_text(encoding="utf-8")), cls)


@dataclass(frozen=True)
class TimeLimit:
    """The minutes of a run, from its start to its last line.

    Attributes:
        seconds: of the whole run.
        started: its start, in seconds of ``clock``.
        after: seconds that are needed after the last epoch: test split, result images.
        eval_epochs: epochs between two evaluations.
        clock: returns seconds.
    """

    seconds: float
    started: float
    after: float = 0.0
    eval_epochs: int = 1
    clock: Callable[[], float] = monotonic

    def left(self) -> float:
        """Return the seconds that are left for epochs."""
        return self.started + self.seconds - self.clock() - self.after

    def cost(self, done: int, epochs: int, seconds: EpochSeconds) -> float:
        """Return the seconds from the end of the training of epoch ``done`` to that of a run of ``epochs`` epochs.

        Args:
            done: number of trained epochs; the evaluation and the checkpoint of the last one are still to come.
        """
        evaluations = sum(
            epoch > 0 and (epoch % self.eval_epochs == 0 or epoch == epochs) for epoch in range(done, epochs + 1)
        )
        checkpoints = epochs - done + (done > 0)
        return (epochs - done) * seconds.training + evaluations * seconds.evaluation + checkpoints * seconds.saving

    def epochs_that_fit(self, seconds: EpochSeconds, most: int | None = None) -> int:
        """Return the number of epochs to plan.

        Args:
            seconds: as measured before the training.
            most: the largest number; None for no limit.

        Raises:
            DataError: not even one epoch fits; names the least time.
        """
        available = (1 - MARGIN) * self.left()
        least = self.cost(0, 1, seconds)
        if least > available:
            spent = self.seconds - self.left() - self.after
            needed = spent + self.after + least / (1 - MARGIN)
            raise DataError(
                f"--minutes {self.seconds / 60:g}: this run needs at least {_rounded_up(needed / 60):g} minutes: "
                f"{duration(spent)} before the training, {duration(least)} for one epoch with its evaluation, "
                f"{duration(self.after)} after it; give more minutes, or fewer or smaller images (--subset, "
                "--image-size)"
            )
        epochs = most or int(available / (seconds.training + seconds.saving)) + 1
        return _largest(epochs, 1, lambda count: self.cost(0, count, seconds) <= available)

    def cut(self, done: int, planned: int, seconds: EpochSeconds) -> int | None:
        """Return a smaller number of epochs if the run would end too late; None if it is in time.

        Args:
            done: number of trained epochs, before the evaluation of the last one.
            seconds: as measured in the epochs of the run.
        """
        left, tolerance = self.left(), max(TOLERANCE_SHARE * self.seconds, TOLERANCE_SECONDS)
        if done >= planned or self.cost(done, planned, seconds) <= left + 0.75 * tolerance:
            return None
        return _largest(planned - 1, done, lambda count: self.cost(done, count, seconds) <= left)


def _largest(most: int, least: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to ``most`` that fits; ``least`` if none does. Fitting numbers have no gaps."""
    low, high = least, max(most, least)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _rounded_up(minutes: float) -> float:
    return int(minutes * 10 + 1) / 10
