"""Sampling by class: the published formulas, an order that depends on (seed, epoch) alone, and a user's own sampler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data

from detseg.datasets.balance import class_balanced_weights, repeat_factors, weighted_order
from detseg.datasets.loader import data_loader
from detseg.datasets.sampler import EpochSampler, SampleKey, Shard
from detseg.errors import DataError
from tests.annotations.test_split import class_table, make_table

IMBALANCED = [[1]] * 90 + [[1, 2]] * 9 + [[3]]


@pytest.mark.parametrize(
    ("labels", "threshold", "expected"),
    [
        ([], None, []),
        ([[]], None, [1.0]),
        ([[1]], None, [1.0]),
        ([[1]] * 3 + [[1, 2]], None, [1, 1, 1, 2]),  # sqrt(1 / 0.25)
        ([[1]] * 3 + [[1, 2]], 0.25, [1, 1, 1, 1]),
        ([[1]] * 99 + [[2]], 0.09, [1] * 99 + [3]),  # sqrt(0.09 / 0.01)
        ([[1]] * 2 + [[]] * 2, None, [1, 1, 1, 1]),
    ],
)
def test_repeat_factors(labels: list[list[int]], threshold: float | None, expected: list[float]) -> None:
    assert repeat_factors(make_table(labels), threshold).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("table", [make_table(IMBALANCED), class_table([0] * 50 + [1] * 5 + [2])])
def test_class_balanced_weights_draw_every_class_equally_often(table: Any) -> None:
    weights = class_balanced_weights(table)
    assert weights.mean() == pytest.approx(1)
    first = [int(record.class_index[0]) if table.has_class_index else max(record.labels) for record in table]
    totals = np.bincount(np.array(first), weights=weights)
    totals = totals[totals > 0]
    assert totals[1:] == pytest.approx(totals[1], rel=0.2)


def test_images_without_a_class_are_drawn_as_often_as_before() -> None:
    weights = class_balanced_weights(make_table([[1]] * 8 + [[2], []]))
    assert weights[-1] == 1
    assert class_balanced_weights(make_table([[], []])).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_each_row_is_drawn_as_often_as_its_weight_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.random(57) ** 4
    weights[:5] = 0
    order = weighted_order(weights, np.random.default_rng(seed))
    assert len(order) == 57
    times = np.bincount(order, minlength=57)
    share = weights / weights.sum() * 57
    assert (np.abs(times - share) < 1 + 1e-6).all()
    assert not times[:5].any()


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def keys(epoch: int, skip: int = 0) -> list[SampleKey]:
        sampler = EpochSampler(100, seed=3, shuffle=True, weights=repeat_factors(make_table(IMBALANCED)))
        sampler.set_epoch(epoch, skip)
        return list(sampler)

    assert keys(2) == keys(2) != keys(3)
    assert keys(2, skip=40) == keys(2)[40:], "a resumed epoch goes on with the same samples"
    assert len(set(keys(2))) == 100, "an image that is drawn twice has another augmentation"
    rare = [key for key in keys(2) if key.index == 99]
    assert [key.occurrence for key in rare] == list(range(len(rare)))
    assert len(rare) > 3
    plain = EpochSampler(100, seed=3, shuffle=True)
    assert [key.occurrence for key in plain] == [0] * 100


def test_processes_share_the_samples_of_an_epoch() -> None:
    weights = repeat_factors(make_table(IMBALANCED))
    whole = set(EpochSampler(100, seed=1, shuffle=True, weights=weights))
    parts = [
        list(EpochSampler(100, seed=1, shuffle=True, weights=weights, shard=Shard(rank, 2, 5, even=True)))
        for rank in range(2)
    ]
    assert set(parts[0]) | set(parts[1]) == whole
    assert not set(parts[0]) & set(parts[1])


class Numbers(torch.utils.data.Dataset[Any]):
    """Samples that say how they were indexed."""

    takes_sample_keys = True

    def __len__(self) -> int:
        return 10

    def __getitem__(self, key: Any) -> tuple[Any, dict[str, Any]]:
        return key, {}


class Backwards:
    """A user's sampler; every second epoch starts in the middle."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rows = list(range(9, -1, -1))
        return iter(rows if self.epoch % 2 == 0 else rows[5:] * 2)

    def __len__(self) -> int:
        return 10


def test_a_user_s_sampler_gets_the_epoch_and_can_be_resumed() -> None:
    loader = data_loader(Numbers(), 4, sampler=Backwards())
    loader.sampler.set_epoch(1)
    keys = [key for images, _ in loader for key in images]
    assert keys == [SampleKey(row, 1, time) for time in (0, 1) for row in (4, 3, 2, 1, 0)]
    loader.sampler.set_epoch(1, skip=4)
    assert [key for images, _ in loader for key in images] == keys[4:]


def test_drop_last_and_a_user_s_collate_function() -> None:
    assert [len(images) for images, _ in data_loader(Numbers(), 4)] == [4, 4, 2]
    loader = data_loader(Numbers(), 4, drop_last=True, collate=lambda samples: [key.index for key, _ in samples])
    assert list(loader) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": Backwards(), "shuffle": True}, "omit shuffle"),
        ({"sampler": Backwards(), "world": 2}, "omit shuffle"),
        ({"weights": np.ones(10)}, "need shuffle=True"),
        ({"weights": np.ones(9), "shuffle": True}, "for 10 samples"),
        ({"weights": np.zeros(10), "shuffle": True}, "not all of them 0"),
        ({"weights": np.full(10, np.nan), "shuffle": True}, "finite numbers"),
        ({"weights": -np.ones(10), "shuffle": True}, "finite numbers"),
    ],
)
def test_arguments_that_contradict_each_other(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        data_loader(Numbers(), 4, **options)
