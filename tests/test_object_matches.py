"""Which prediction is which object: hits, misses, false alarms, and confused classes."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.object_matches import FALSE_ALARM, NOT_COUNTED, match_objects

A, B, FAR = [0.0, 0, 10, 10], [20.0, 20, 30, 30], [50.0, 50, 60, 60]
NONE: list[list[float]] = []


@pytest.mark.parametrize(
    ("objects", "labels", "boxes", "predicted", "object_of", "missed"),
    [
        (NONE, [], NONE, [], [], []),
        (NONE, [], [A], [1], [FALSE_ALARM], []),
        ([A], [1], NONE, [], [], [True]),
        ([A, B], [1, 2], [B, A], [2, 1], [1, 0], [False, False]),
        ([A], [1], [A], [2], [FALSE_ALARM], [True]),  # another class
        ([A], [1], [[0.0, 0, 10, 5.0]], [1], [0], [False]),  # IoU 0.5 is enough
        ([A], [1], [[0.0, 0, 10, 4.9]], [1], [FALSE_ALARM], [True]),
        ([A], [1], [A, A], [1, 1], [0, FALSE_ALARM], [False]),  # the second of two
        ([A, [0.0, 0, 10, 8]], [1, 1], [[0.0, 0, 10, 9.5], A], [1, 1], [0, 1], [False, False]),
    ],
)
def test_matches(
    objects: list[list[float]],
    labels: list[int],
    boxes: list[list[float]],
    predicted: list[int],
    object_of: list[int],
    missed: list[bool],
) -> None:
    arrays = [np.array(values, np.float64).reshape(-1, 4) for values in (objects, boxes)]
    numbers = [np.array(values, np.int64) for values in (labels, predicted)]
    matches = match_objects(arrays[0], numbers[0], arrays[1], numbers[1], num_labels=2)
    assert matches.object_of.tolist() == object_of
    assert matches.is_missed.tolist() == missed
    assert matches.mistakes == sum(missed) + object_of.count(FALSE_ALARM)
    assert matches.confusion.sum() == len(labels) + object_of.count(FALSE_ALARM) - _confused(matches.confusion)


def _confused(confusion: np.ndarray) -> int:
    """Objects with a prediction of another class are one count of a miss and a false alarm."""
    inner = confusion[:-1, :-1]
    return int(inner.sum() - np.trace(inner))


def test_crowds_and_ignored_objects_are_neither_hits_nor_missed() -> None:
    crowd = [0.0, 0, 100, 100]
    boxes, labels = np.array([crowd, A]), np.array([1, 1])
    predictions = np.array([[40.0, 40, 50, 50], [41.0, 40, 50, 50], FAR])
    matches = match_objects(
        boxes, labels, predictions, np.array([1, 1, 2]), num_labels=2, not_counted=np.array([True, False])
    )
    assert matches.object_of.tolist() == [NOT_COUNTED, NOT_COUNTED, FALSE_ALARM], "of its class only"
    assert matches.is_missed.tolist() == [False, True]


def test_confusion_has_the_background() -> None:
    objects = np.array([A, B, FAR])
    predictions = np.array([A, [20.0, 20, 30, 31], [80.0, 80, 90, 90]])
    matches = match_objects(objects, np.array([1, 2, 2]), predictions, np.array([1, 1, 2]), num_labels=2)
    assert matches.confusion.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
