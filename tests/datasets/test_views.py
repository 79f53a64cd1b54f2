"""Fixed views are the same in every run; packed targets are restored exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from detseg.datasets import Dataset, SampleKey, Views, fixed_views
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import EveryView, UncachedViews
from detseg.preprocess import Preprocessing

PREPROCESSING = Preprocessing(64, 0)


@pytest.fixture
def table(make_table: Callable[..., Any]) -> Any:
    instances = [[[20, 20, 8, 12], [60, 40, 10, 6]], [], [[30, 30, 20, 20]], [[10, 50, 6, 6]] * 3]
    return make_table([(64, 96), (64, 64), (64, 80), (64, 64)], instances)


def views(table: Any, *, sampled: int = 2, seed: int = 0) -> Views:
    return Views(table, PREPROCESSING, task="segment", views=fixed_views("light", "segment", sampled), seed=seed)


def equal(first: Any, second: Any) -> bool:
    same = [torch.equal(first[0], second[0])]
    if first[1].keys() == second[1].keys():
        same += [torch.equal(first[1][name], second[1][name]) for name in first[1]]
    return len(same) > 1 and all(same)


def test_unchanged_and_flipped_views(table: Any) -> None:
    reference = Dataset(table, PREPROCESSING, task="segment")
    dataset = views(table)
    for row in range(len(table)):
        assert equal(dataset.sample(row, 0), reference[row])
        image, target = dataset.sample(row, 1)
        assert torch.equal(image.flip(-1), reference[row][0])
        assert torch.equal(target["masks"].flip(-1), reference[row][1]["masks"])
        assert torch.equal(target["labels"], reference[row][1]["labels"])


def test_none_has_one_view_and_sampled_views_differ(table: Any) -> None:
    assert fixed_views("none", "segment", 3) == [None]
    dataset = views(table)
    assert len(dataset.views) == 4
    assert not equal(dataset.sample(0, 2), dataset.sample(0, 3))


def test_only_the_choice_of_views_depends_on_the_seed_of_the_run(table: Any) -> None:
    first, second = views(table, seed=1), views(table, seed=2)
    assert all(equal(first.sample(row, view), second.sample(row, view)) for row in range(4) for view in range(4))
    keys = [SampleKey(row, epoch) for row in range(4) for epoch in range(8)]
    assert [first.view_key(key) for key in keys] != [second.view_key(key) for key in keys]
    assert {first.view_key(key).view for key in keys} == {0, 1, 2, 3}
    assert equal(first[SampleKey(2, 5)], first.sample(2, first.view_key(SampleKey(2, 5)).view))


def test_a_subset_has_the_same_views(table: Any) -> None:
    whole, subset = views(table), views(table).subset([3, 1])
    assert subset.view_key(SampleKey(0, 4)) == whole.view_key(SampleKey(3, 4))
    assert equal(subset[SampleKey(0, 4)], whole[SampleKey(3, 4)])


def test_cached_views_are_not_loaded(table: Any) -> None:
    whole, key, other = views(table), SampleKey(1, 3), SampleKey(0, 3)
    dataset = UncachedViews(whole, {whole.view_key(key)})
    assert len(dataset) == len(whole)
    assert dataset[key] == (whole.view_key(key), None)
    view_key, sample = dataset[other]
    assert view_key == whole.view_key(other)
    assert sample is not None
    assert equal(sample, whole[other])
    assert dataset[0][0] == whole.view_key(SampleKey(0))


def test_every_view_contains_all_views(table: Any) -> None:
    every = EveryView(views(table))
    assert len(every) == 16
    assert len({every.view_key(item) for item in range(16)}) == 16
    assert equal(every[6], every.views.sample(1, 2))


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_packed_targets_are_restored(table: Any, task: Any) -> None:
    dataset = Dataset(table, PREPROCESSING, task=task)
    for row in range(len(table)):
        image, target = dataset[row]
        packed = PackedTarget.pack(target)
        assert equal((image, packed.unpack()), (image, target))
        packed.unpack()["boxes"] += 1  # the result is a copy
        assert torch.equal(packed.unpack()["boxes"], target["boxes"])
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (5, 33, 47)).astype(np.uint8))
    masks[1] = 0
    masks[2] = 0
    masks[2, 32, 46] = 1
    packed = PackedTarget.pack({"masks": masks})
    assert torch.equal(packed.unpack()["masks"], masks)
    assert packed.nbytes < masks.nbytes / 7
