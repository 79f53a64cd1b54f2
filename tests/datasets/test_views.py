"""Fixed views: the same in every run, mirrored where they say so, and packed targets that come back as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from detseg.datasets import Dataset, SampleKey, Views, fixed_views
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import EveryView
from detseg.preprocess import Preprocessing

PREPROCESSING = Preprocessing(64, 0)


@pytest.fixture
def table(make_table: Callable[..., Any]) -> Any:
    instances = [[[20, 20, 8, 12], [60, 40, 10, 6]], [], [[30, 30, 20, 20]], [[10, 50, 6, 6]] * 3]
    return make_table([(64, 96), (64, 64), (64, 80), (64, 64)], instances)


def views(table: Any, *, drawn: int = 2, seed: int = 0) -> Views:
    return Views(table, PREPROCESSING, task="segment", views=fixed_views("light", "segment", drawn), seed=seed)


def equal(one: Any, other: Any) -> bool:
    same = [torch.equal(one[0], other[0])]
    same += [torch.equal(one[1][name], other[1][name]) for name in one[1]] if one[1].keys() == other[1].keys() else []
    return len(same) > 1 and all(same)


def test_plain_and_mirrored(table: Any) -> None:
    plain = Dataset(table, PREPROCESSING, task="segment")
    found = views(table)
    for row in range(len(table)):
        assert equal(found.sample(row, 0), plain[row])
        image, target = found.sample(row, 1)
        assert torch.equal(image.flip(-1), plain[row][0])
        assert torch.equal(target["masks"].flip(-1), plain[row][1]["masks"])
        assert torch.equal(target["labels"], plain[row][1]["labels"])


def test_none_has_one_view_and_drawn_ones_differ(table: Any) -> None:
    assert fixed_views("none", "segment", 3) == [None]
    found = views(table)
    assert len(found.views) == 4
    assert not equal(found.sample(0, 2), found.sample(0, 3))


def test_views_do_not_depend_on_the_seed_of_the_run_but_their_choice_does(table: Any) -> None:
    one, other = views(table, seed=1), views(table, seed=2)
    assert all(equal(one.sample(row, view), other.sample(row, view)) for row in range(4) for view in range(4))
    keys = [SampleKey(row, epoch) for row in range(4) for epoch in range(8)]
    assert [one.place(key) for key in keys] != [other.place(key) for key in keys]
    assert {one.place(key).view for key in keys} == {0, 1, 2, 3}
    assert equal(one[SampleKey(2, 5)], one.sample(2, one.place(SampleKey(2, 5)).view))


def test_a_subset_shows_what_the_whole_shows(table: Any) -> None:
    whole, part = views(table), views(table).subset([3, 1])
    assert part.place(SampleKey(0, 4)) == whole.place(SampleKey(3, 4))
    assert equal(part[SampleKey(0, 4)], whole[SampleKey(3, 4)])


def test_what_is_kept_comes_as_its_place(table: Any) -> None:
    found = views(table)
    key = SampleKey(1, 3)
    found.kept = {found.place(key)}
    assert found[key] == (found.place(key), None)
    assert isinstance(found[SampleKey(0, 3)][0], torch.Tensor)


def test_every_view_counts_all(table: Any) -> None:
    every = EveryView(views(table))
    assert len(every) == 16
    assert len({every.place(item) for item in range(16)}) == 16
    assert equal(every[6], every.of.sample(1, 2))


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_packed_targets_come_back(table: Any, task: Any) -> None:
    dataset = Dataset(table, PREPROCESSING, task=task)
    for row in range(len(table)):
        image, target = dataset[row]
        packed = PackedTarget.of(target)
        assert equal((image, packed.target()), (image, target))
        packed.target()["boxes"] += 1  # what is given out is a copy
        assert torch.equal(packed.target()["boxes"], target["boxes"])
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (5, 33, 47)).astype(np.uint8))
    masks[1] = 0
    masks[2] = 0
    masks[2, 32, 46] = 1
    packed = PackedTarget.of({"masks": masks})
    assert torch.equal(packed.target()["masks"], masks)
    assert packed.nbytes < masks.nbytes / 7
