"""Test the suggestions that follow from measured rates."""

from __future__ import annotations

import pytest

from detseg.benchmarks.feeding.advice import best_rate, decoded_line, waiting_line, workers_line
from detseg.benchmarks.feeding.sweep import WorkerRate


def rates(*training: float) -> list[WorkerRate]:
    return [WorkerRate(workers, 50.0, rate, 0.2, 9) for workers, rate in zip((0, 1, 2, 4), training, strict=False)]


@pytest.mark.parametrize(
    ("training", "workers"),
    [((10,), 0), ((10, 10.2), 0), ((10, 19, 20), 1), ((10, 9, 20, 20.5), 2), ((5, 10, 20, 40), 4), ((10, 9, 8), 0)],
)
def test_the_fewest_workers_that_are_as_fast_as_the_best(training: tuple[float, ...], workers: int) -> None:
    assert best_rate(rates(*training)).workers == workers


def test_more_workers_cannot_help_a_model_that_does_not_wait() -> None:
    noisy = [WorkerRate(0, 182.0, 3.22, 0.02, 7), WorkerRate(1, 81.0, 3.73, 0.02, 8)]
    assert best_rate(noisy).workers == 0
    waiting = [WorkerRate(0, 182.0, 3.22, 0.2, 7), WorkerRate(1, 81.0, 3.73, 0.02, 8)]
    assert best_rate(waiting).workers == 1, "control"


def test_the_suggestion_has_its_numbers_and_the_default_of_train() -> None:
    line = workers_line(rates(10, 20, 30), default=1)
    assert line == (
        "suggestion: --workers 2 (30 images per second of training, 1.50 times as fast as the default of train on this "
        "machine, 1: 20)"
    )
    assert workers_line(rates(10, 20, 30), 2).endswith("which is the default of train on this machine")
    assert "the default of train on this machine, 7, was not measured" in workers_line(rates(10, 20, 30), 7)


@pytest.mark.parametrize(("waiting", "who"), [(0.4, "the model waits for images"), (0.01, "loading waits for the")])
def test_who_waits_for_whom(waiting: float, who: str) -> None:
    line = waiting_line(WorkerRate(2, 12.0, 10.0, waiting, 9), 30.0)
    assert who in line
    assert f"{waiting:.0%}" in line
    assert "loading alone 12 images per second, model alone 30" in line


def test_a_suggested_limit_is_never_below_the_size() -> None:
    assert "suggestion: --decoded-limit 0.1 for 0.036 GB" in decoded_line(0.036, 0.0, 100.0, 0.006, 0.01)
    assert "suggestion: --decoded-limit 0.1 for 0.095 GB" in decoded_line(0.095, 0.0, 100.0, 0.006, 0.01)


@pytest.mark.parametrize(
    ("gigabytes", "free", "expected"),
    [
        (2.0, None, "fit in --decoded-limit 4, which saves 60% of loading"),
        (2.0, 100.0, "fit in --decoded-limit 4"),
        (6.0, 100.0, "suggestion: --decoded-limit 6.1 for 6 GB"),
        (6.0, None, "suggestion: --decoded-limit 6.1"),
        (6.0, 20.0, "do not fit: a run uses a quarter of the 20 GB"),
        (2.0, 4.0, "do not fit"),
    ],
)
def test_whether_decoded_images_fit_the_cache(gigabytes: float, free: float | None, expected: str) -> None:
    assert expected in decoded_line(gigabytes, 4.0, free, saved=0.006, sample=0.01)
