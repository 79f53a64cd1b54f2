"""A run keeps its minutes, whether its epochs take as long as measured or not: with a clock of the test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from detseg.errors import DataError
from detseg.training.time_limit import TOLERANCE_SECONDS, TOLERANCE_SHARE, Cut, EpochSeconds, TimeLimit

MEASURED = EpochSeconds(training=6.0, evaluation=2.0, saving=0.5)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Run:
    """What :class:`~detseg.training.trainer.Trainer` does with the limit, in simulated seconds."""

    limit: TimeLimit
    clock: Clock
    factor: float
    cuts: bool = True

    def train(self, planned: int) -> tuple[int, int, float]:
        """Return the number of epochs, of cuts, and the seconds at the end of the run."""
        epochs, done, cuts, times = planned, 0, 0, []
        real = EpochSeconds(*(self.factor * seconds for seconds in MEASURED))
        while done < epochs:
            self.clock.now += real.training
            times.append(real.training + (real.saving if done else 0.0))
            done += 1
            seconds = replace_training(real, sum(times) / len(times))
            found = self.limit.cut(done, epochs, seconds) if self.cuts and not cuts else None
            if found is not None:
                epochs, cuts = found, cuts + 1
            if done % self.limit.eval_epochs == 0 or done == epochs:
                self.clock.now += real.evaluation
            self.clock.now += real.saving
        self.clock.now += self.limit.after
        return epochs, cuts, self.clock.now


def replace_training(seconds: EpochSeconds, training: float) -> EpochSeconds:
    return seconds._replace(training=training, saving=0.0)


def run_of(minutes: float, factor: float, eval_epochs: int = 1, *, cuts: bool = True) -> tuple[Run, int]:
    clock = Clock(30.0)  # reading, features and measuring
    limit = TimeLimit(60 * minutes, 0.0, after=12.0, eval_epochs=eval_epochs, clock=clock)
    return Run(limit, clock, factor, cuts), limit.epochs_that_fit(MEASURED)


@pytest.mark.parametrize("factor", [0.5, 1, 2, 4, 8])
@pytest.mark.parametrize("minutes", [4.0, 10.0, 60.0])
@pytest.mark.parametrize("eval_epochs", [1, 4])
def test_a_run_ends_within_its_minutes(minutes: float, factor: float, eval_epochs: int) -> None:
    run, planned = run_of(minutes, factor, eval_epochs)
    epochs, cuts, end = run.train(planned)
    bound = 60 * minutes + max(TOLERANCE_SHARE * 60 * minutes, TOLERANCE_SECONDS)
    assert end <= bound
    assert cuts == (factor > 1)
    assert 1 <= epochs <= planned
    if factor == 1:
        assert end >= 60 * minutes - 2 * (sum(MEASURED) + eval_epochs * MEASURED.training) - 0.03 * 60 * minutes
    if factor > 1:
        late, _ = run_of(minutes, factor, eval_epochs, cuts=False)
        assert late.train(planned)[2] > bound, "control: without a cut it takes longer"


def test_too_few_minutes_are_refused_with_the_least_number() -> None:
    with pytest.raises(
        DataError, match=r"--minutes 0.5: this run needs at least 0.9 minutes: 30 s before the training"
    ):
        run_of(0.5, 1)
    assert run_of(0.9, 1)[1] == 1, "the least number is enough"


def test_the_number_of_epochs_counts_evaluations() -> None:
    limit = TimeLimit(100.0, 0.0, clock=Clock(), eval_epochs=4)
    assert limit.cost(0, 4, MEASURED) == 4 * 6.5 + 2
    assert limit.cost(0, 5, MEASURED) == 5 * 6.5 + 4, "the last epoch is always evaluated"
    assert limit.cost(4, 5, MEASURED) == 6 + 2 * 2 + 2 * 0.5, "epoch 4 is trained, but not evaluated and saved"
    assert limit.epochs_that_fit(MEASURED, most=3) == 3
    assert limit.epochs_that_fit(MEASURED) == 13


def test_a_cut_keeps_trained_epochs(tmp_path: Path) -> None:
    clock = Clock(500.0)
    limit = TimeLimit(100.0, 0.0, clock=clock)
    assert limit.cut(3, 9, MEASURED) == 3, "too late already: the evaluation of the last one follows"
    assert limit.cut(9, 9, MEASURED) is None
    assert replace(limit, seconds=1000.0).cut(3, 9, MEASURED) is None
    assert Cut.read(tmp_path) is None
    Cut(3, 5).write(tmp_path)
    assert Cut.read(tmp_path) == Cut(3, 5)
