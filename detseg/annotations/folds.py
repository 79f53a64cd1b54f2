"""Divide a table into the folds of a cross-validation: the same classes in each, and a group is never in two folds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from detseg.annotations.groups import group_rows, with_groups
from detseg.annotations.split import Splits, assign_units, class_presence
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.seeds import derive_seed

_FOLDS = 3  # purpose of the generator; split.py has the others


def folds(table: AnnotationTable, k: int, *, seed: int = 0, groups: str | Path | None = None) -> list[Splits]:
    """The ``k`` ways to train on all folds but one, and to validate on that one: stratified group k-fold.

    Each image is in one validation split. Each fold has about the same number of images, and the same share of every
    class and of images without any (see ``assign_units``). If the source has a test split, it is the "test" of each;
    its train and val splits are joined and divided again.

    Args:
        table: table of any reader.
        k: number of folds, at least 2.
        seed: the folds depend only on it and on the table.
        groups: as in ``with_groups``; None uses the groups of the table.

    Returns:
        k splits with "train", "val" and, if the source has one, "test"; in the order of the table.

    Raises:
        DataError: fewer groups (or images) than folds.
    """
    if k < 2:
        raise DataError(f"{k} folds: a cross-validation has at least 2")
    if groups is not None:
        table = with_groups(table, groups)
    is_test = table.split == "test"
    test = table.subset(np.flatnonzero(is_test))
    table = table.subset(np.flatnonzero(~is_test))
    units = group_rows(table)
    if len(units) < k:
        noun = "groups" if any(table.group.tolist()) else "images"
        raise DataError(f"{table.source}: {len(units)} {noun} cannot be divided into {k} folds; request fewer folds")
    sizes = [len(part) for part in np.array_split(np.arange(len(table)), k)]
    generator = np.random.default_rng(derive_seed(seed, _FOLDS))
    fold_of_unit = assign_units(units, class_presence(table), sizes, generator)
    fold_of = np.zeros(len(table), np.int64)
    for rows, fold in zip(units, fold_of_unit.tolist(), strict=True):
        fold_of[rows] = fold
    return [
        {"train": table.subset(np.flatnonzero(fold_of != fold)), "val": table.subset(np.flatnonzero(fold_of == fold))}
        | ({"test": test} if len(test) else {})
        for fold in range(k)
    ]


def parse_fold(text: str) -> tuple[int, int]:
    """``"2/5"`` -> (2, 5): the second of five folds.

    Raises:
        DataError: not such a text, or no such fold.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    number, k = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= k or k < 2:
        raise DataError(f"--fold {text}: give the number of the fold and the number of folds, such as 1/5")
    return number, k
