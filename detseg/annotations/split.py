"""Divide a table into train, val and test: the same parts from the same seed, never a group on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name, first_names, group_rows, noted, with_groups
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.seeds import derive_seed

Splits = dict[str, AnnotationTable]

TEST_FROM = 100
"""Records from which a test part is held out by default: below, 15 % are too few images to tell anything."""

TEST = 0.15
"""The fraction of that test part."""

_SPLIT, _SUBSET = 1, 2  # what a generator is for, so that two uses of one seed are unrelated


def split(
    table: AnnotationTable,
    *,
    seed: int = 0,
    val: float = 0.2,
    test: float | None = None,
    by: str = "auto",
    groups: str | Path | None = None,
) -> Splits:
    """Divide ``table`` into "train", "val" and perhaps "test"; every part has at least one image.

    Parts keep the order of the table. A table of one image gives that image to every part, with a note.

    Args:
        table: what a reader gave.
        seed: the parts depend on it and on the table alone.
        val: fraction for validation, above 0; not used where the source has its own.
        test: fraction for a final test; None holds out 0.15 from 100 images up (of a source with its own train and
            val: none but its own).
        by: "source" takes the source's own parts (a source without val, or without a test that is asked for, has it
            taken from train), "group" keeps groups together, "stratified" gives each part the same share of every
            class and of images without any, "auto" the first of these that the table allows.
        groups: what ``with_groups`` takes; "auto" then divides by it. None uses the table's own groups.

    Raises:
        DataError: fractions that leave nothing, no images, too few groups, or an option that contradicts another.
    """
    if not len(table):
        raise DataError(f"{table.source or 'the table'}: there are no images to divide; check the data folder")
    if not (0 < val < 1 and 0 <= (test or 0) < 1 and val + (test or 0) < 1):
        raise DataError(
            f"val {val} and test {test} leave nothing to train on or to validate with; keep val above 0 and the sum "
            "below 1"
        )
    if groups is not None:
        if by not in ("auto", "group"):
            raise DataError(f"groups {groups} were given, but the split is by {by}; leave one of the two out")
        table, by = with_groups(table, groups), "group"
    own = sorted(set(table.split.tolist()) - {""})
    if by == "auto":
        by = _pick(table, own)
        if by != "source" and len(own) > 1:
            table = noted(table, "source's own split not used, it has no train part", [", ".join(own)])
    if by == "source":
        return _by_source(table, own, seed, val, test)
    if by not in ("group", "stratified"):
        raise DataError(f"split by {by!r} is not known; choose auto, stratified, group or source")
    if test is None:
        test = TEST if len(table) >= TEST_FROM else 0.0
    return _divide(table, {"val": val, "test": test}, seed, by)


def subset(table: AnnotationTable, n: int, seed: int = 0) -> AnnotationTable:
    """``n`` images with about the class shares of ``table``, in its order; all of them if there are not more.

    Of one seed, the smaller subset is part of the larger one, so that a learning curve adds images and swaps none.

    Raises:
        DataError: ``n`` is below 1.
    """
    if n < 1:
        raise DataError(f"a subset of {n} images cannot be trained on; ask for at least 1")
    if n >= len(table):
        return table
    presence = class_presence(table)
    stratum = np.argmin(np.where(presence, presence.sum(axis=0), len(table) + 1), axis=1)  # its rarest class
    order = np.random.default_rng(derive_seed(seed, _SUBSET)).permutation(len(table))
    place = np.zeros(len(table))
    for label in np.unique(stratum):
        members = order[stratum[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(place[order], kind="stable")[:n]]
    return table.subset(np.sort(chosen))


def class_presence(table: AnnotationTable) -> npt.NDArray[np.bool_]:
    """bool [I, 1 + K]: column k says whether class k is in the image, column 0 that none is.

    The classes of an image are its own (classification), or else those of its instances that are trained on.
    """
    presence = np.zeros((len(table), 1 + len(table.class_map)), np.bool_)
    if table.has_class_index:
        presence[table.image_labels()] = True
    else:
        instances = table.instance_rows()
        rows = np.repeat(np.arange(len(table)), table.instances_per_image())
        trained = ~(table.iscrowd[instances] | table.ignore[instances])
        presence[rows[trained], table.label[instances[trained]]] = True
    presence[:, 0] = ~presence.any(axis=1)
    return presence


def _pick(table: AnnotationTable, own: list[str]) -> str:
    if "train" in own and (len(own) > 1):
        return "source"
    return "group" if any(table.group.tolist()) else "stratified"


def _by_source(table: AnnotationTable, own: list[str], seed: int, val: float, test: float | None) -> Splits:
    if "train" not in own:
        raise DataError(
            f"{table.source}: the source has no train part of its own (it has {', '.join(own) or 'none'}); "
            "divide by stratified or group"
        )
    names = table.split.tolist()
    outside = [row for row, name in enumerate(names) if name not in ("train", "val", "test")]
    if outside:
        table = noted(table, "image in no part of the source's split left out", [file_name(table, r) for r in outside])
    parts: Splits = {
        name: table.subset([row for row, own_name in enumerate(names) if own_name == name])
        for name in ("train", "val", "test")
        if name in own
    }
    wanted = {"val": 0.0 if "val" in own else val, "test": 0.0 if "test" in own else test or 0.0}
    if any(wanted.values()):
        how = "group" if any(table.group.tolist()) else "stratified"
        parts |= _divide(parts["train"], wanted, seed, how)
    return {name: parts[name] for name in ("train", "val", "test") if name in parts}


def _divide(table: AnnotationTable, wanted: dict[str, float], seed: int, by: str) -> Splits:
    """Take the ``wanted`` fractions that are above 0 from ``table``; "train" is the rest."""
    names = ["train", *(name for name, fraction in wanted.items() if fraction > 0)]
    if len(table) == 1:
        only = noted(table, f"{', '.join(names)} are the same image, because there is only one", [file_name(table, 0)])
        return dict.fromkeys(names, only)
    units = group_rows(table) if by == "group" else [np.array([row]) for row in range(len(table))]
    if len(units) < len(names):
        what = "groups" if by == "group" else "images"
        raise DataError(
            f"{table.source}: {len(units)} {what} cannot be divided into {', '.join(names)}; "
            f"add {what}, or ask for fewer parts"
            + (f" (first images: {first_names([file_name(table, int(unit[0])) for unit in units])})")
        )
    sizes = [max(1, round(wanted[name] * len(table))) for name in names[1:]]
    sizes = [max(1, len(table) - sum(sizes)), *sizes]
    if sum(sizes) > len(table):  # three images in three parts, whatever was asked for
        sizes[int(np.argmax(sizes))] -= sum(sizes) - len(table)
    part_of = deal(units, class_presence(table), sizes, np.random.default_rng(derive_seed(seed, _SPLIT)))
    return {
        name: table.subset(np.sort(np.concatenate([units[u] for u in np.flatnonzero(part_of == part)])))
        for part, name in enumerate(names)
    }


def deal(
    units: Sequence[npt.NDArray[np.int64]],
    presence: npt.NDArray[np.bool_],
    sizes: Sequence[int],
    generator: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Deal units of images out to parts: the largest and those with the rarest class first, each to the part that
    lacks its classes most and has room for it (after Sechidis et al., "On the stratification of multi-label data",
    ECML 2011, with sizes that are kept exactly when every unit is one image).

    Args:
        units: rows of images that stay together; at least as many units as parts.
        presence: bool [I, C], the classes of each image.
        sizes: images that each part should get; they sum to I.

    Returns:
        int64 [U]: the part of each unit; no part is empty.
    """
    counts = np.array([presence[rows].sum(axis=0) for rows in units], np.float64)
    lengths = np.array([len(rows) for rows in units])
    total = counts.sum(axis=0)
    rarity = np.where(counts > 0, total, np.inf).min(axis=1)
    weight = 1 / np.maximum(total, 1) ** 2  # a share of a rare class counts as much as the same share of a common one
    need = np.outer(np.array(sizes) / len(presence), total)
    room = np.array(sizes, np.float64)
    part_of = np.zeros(len(units), np.int64)
    shuffled = generator.permutation(len(units))
    for unit in shuffled[np.lexsort((rarity[shuffled], -lengths[shuffled]))]:
        fits = room >= lengths[unit]
        lack = np.round(need @ (counts[unit] * weight), 9)
        if fits.any():
            part = int(np.lexsort((-room, -lack, ~fits))[0])
        else:
            part = int(np.argmax(room))
        part_of[unit] = part
        need[part] -= counts[unit]
        room[part] -= lengths[unit]
    for part in range(len(sizes)):
        if not (part_of == part).any():  # large groups took all the room: one moves over
            fullest = int(np.argmax(np.bincount(part_of, minlength=len(sizes))))
            movable = np.flatnonzero(part_of == fullest)
            part_of[movable[np.argmin(lengths[movable])]] = part
    return part_of
