"""Folds of a cross-validation: every image is validated once, classes are spread, groups stay together."""

from __future__ import annotations

import numpy as np
import pytest

from detseg.annotations.folds import folds
from detseg.annotations.split import class_presence
from detseg.errors import DataError
from tests.annotations.test_split import ids, make_table


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("count", "k"), [(2, 2), (3, 2), (7, 3), (50, 5)])
def test_every_image_is_validated_once(count: int, k: int, seed: int) -> None:
    table = make_table([[1]] * count)
    parts = folds(table, k, seed=seed)
    assert len(parts) == k
    validated = [image for part in parts for image in part["val"].image_id.tolist()]
    assert sorted(validated) == table.image_id.tolist()
    for part in parts:
        assert sorted([*part["train"].image_id.tolist(), *part["val"].image_id.tolist()]) == table.image_id.tolist()
    assert max(len(part["val"]) for part in parts) - min(len(part["val"]) for part in parts) <= 1


def test_classes_are_spread() -> None:
    table = make_table([[1]] * 40 + [[1, 2]] * 10 + [[3]] * 5 + [[]] * 5)
    for part in folds(table, 5, seed=3):
        assert class_presence(part["val"]).sum(axis=0).tolist() == [1, 10, 2, 1]


def test_groups_stay_together_and_the_test_split_is_kept() -> None:
    groups = [f"video {row // 4}" for row in range(48)]
    splits = ["test" if row >= 40 else "train" if row % 2 else "val" for row in range(48)]
    table = make_table([[1]] * 48, groups=groups, splits=splits)
    parts = folds(table, 5)
    for part in parts:
        assert not set(part["train"].group.tolist()) & set(part["val"].group.tolist())
        assert part["test"].image_id.tolist() == list(range(41, 49))
    assert np.sum([len(part["val"]) for part in parts]) == 40


def test_the_seed_decides() -> None:
    table = make_table([[1]] * 30)
    assert [ids(part) for part in folds(table, 3, seed=1)] == [ids(part) for part in folds(table, 3, seed=1)]
    assert [ids(part) for part in folds(table, 3, seed=1)] != [ids(part) for part in folds(table, 3, seed=2)]


@pytest.mark.parametrize(
    ("count", "k", "groups", "message"),
    [
        (5, 1, None, "at least 2"),
        (0, 2, None, "0 images cannot be divided into 2 folds"),
        (2, 3, None, "2 images cannot be divided into 3 folds"),
        (6, 3, ["a", "a", "a", "b", "b", "b"], "2 groups cannot be divided into 3 folds"),
    ],
)
def test_too_few_images_or_groups(count: int, k: int, groups: list[str] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        folds(make_table([[1]] * count, groups=groups), k)
