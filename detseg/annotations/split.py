"""Split a table into train, val and test: reproducible from the seed, and a group is never in two splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detseg.annotations.groups import file_name, first_names, group_rows, with_groups, with_notes
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.runtime.seeds import derive_seed

Splits = dict[str, AnnotationTable]

TEST_FROM = 100
"""Records from which a test split is held out by default: below that, 15 % are too few images to be informative."""

TEST = 0.15
"""Default fraction of the test split."""

VIDEO_PARTS = 10
"""Parts of each video, if there are fewer videos than splits."""

CONSECUTIVE = (
    "video split into consecutive parts, because there are fewer videos than splits: frames next to a cut are similar, "
    "so scores are too high; add videos, or keep one for testing"
)
"""Kind of note for such videos."""

_SPLIT, _SUBSET = 1, 2  # purpose of a generator, so that two uses of one seed are independent


def split(
    table: AnnotationTable,
    *,
    seed: int = 0,
    val: float = 0.2,
    test: float | None = None,
    by: str = "auto",
    groups: str | Path | None = None,
) -> Splits:
    """Split ``table`` into "train", "val" and optionally "test"; every split has at least one image.

    With ``val`` 0 there is no "val": its images are in "train", also those of a val split of the source.

    The frames of a video are a group; if there are fewer videos than splits, parts of consecutive frames are.
    Splits preserve the order of the table. If the table has one image, it is in every split, with a note.

    Args:
        table: table of any reader.
        seed: the splits depend only on it and on the table.
        val: fraction for validation; if the source has a val split, only 0 changes it.
        test: fraction for testing; None holds out 0.15 from 100 images up, unless ``val`` is 0 (if the source has train
            and val splits: only its own test split, if any).
        by: "source" uses the splits of the source (a missing val split, or a missing test split that is requested, is
            taken from train), "group" keeps groups together, "stratified" puts the same share of every class and of
            images without any class into each split, "auto" uses the first of these that the table allows.
        groups: as in ``with_groups``; "auto" then splits by it. None uses the groups of the table.

    Raises:
        DataError: fractions that leave no images, an empty table, too few groups, or contradictory options.
    """
    if not len(table):
        raise DataError(f"{table.source or 'the table'}: there are no images to split; check the data folder")
    if not (0 <= val < 1 and 0 <= (test or 0) < 1 and val + (test or 0) < 1):
        raise DataError(
            f"val {val} and test {test} leave no images for training; choose fractions of at least 0 with a sum below 1"
        )
    if groups is not None:
        if by not in ("auto", "group"):
            raise DataError(f"groups {groups} were given, but the split is by {by}; pass only one of the two")
        table, by = with_groups(table, groups), "group"
    source_splits = sorted(set(table.split.tolist()) - {""})
    if by == "auto":
        by = _choose_method(table, source_splits)
        if by != "source" and len(source_splits) > 1:
            table = with_notes(table, "splits of the source not used: train is missing", [", ".join(source_splits)])
    if by == "source":
        return _by_source(table, source_splits, seed, val, test)
    if by not in ("group", "stratified"):
        raise DataError(f"split by {by!r} is not known; choose auto, stratified, group or source")
    if test is None:
        test = TEST if len(table) >= TEST_FROM and val else 0.0
    return _split_off(table, {"val": val, "test": test}, seed, by)


def subset(table: AnnotationTable, n: int, seed: int = 0) -> AnnotationTable:
    """Select ``n`` images with about the class shares of ``table``, in its order; all images if there are not more.

    For one seed, a smaller subset is contained in every larger one, so that a learning curve only adds images.

    Raises:
        DataError: ``n`` is below 1.
    """
    if n < 1:
        raise DataError(f"a subset of {n} images cannot be trained on; request at least 1")
    if n >= len(table):
        return table
    presence = class_presence(table)
    stratum = np.argmin(np.where(presence, presence.sum(axis=0), len(table) + 1), axis=1)  # its rarest class
    order = np.random.default_rng(derive_seed(seed, _SUBSET)).permutation(len(table))
    position = np.zeros(len(table))
    for label in np.unique(stratum):
        members = order[stratum[order] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = order[np.argsort(position[order], kind="stable")[:n]]
    return table.subset(np.sort(chosen))


def class_presence(table: AnnotationTable) -> npt.NDArray[np.bool_]:
    """bool [I, 1 + K]: column k states whether class k is in the image, column 0 whether there is no class.

    The classes of an image are its labels (classification), or else those of its training instances.
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


def _choose_method(table: AnnotationTable, source_splits: list[str]) -> str:
    if "train" in source_splits and (len(source_splits) > 1):
        return "source"
    return "group" if any(table.group.tolist()) else "stratified"


def _by_source(table: AnnotationTable, source_splits: list[str], seed: int, val: float, test: float | None) -> Splits:
    if "train" not in source_splits:
        raise DataError(
            f"{table.source}: the source has no train split (it has {', '.join(source_splits) or 'none'}); "
            "split by stratified or group"
        )
    names = table.split.tolist()
    outside = [row for row, name in enumerate(names) if name not in ("train", "val", "test")]
    if outside:
        table = with_notes(
            table, "image in no split of the source left out", [file_name(table, row) for row in outside]
        )
    if val == 0 and "val" in source_splits:
        moved = [file_name(table, row) for row, name in enumerate(names) if name == "val"]
        table = with_notes(table, "image of the source's val split used for training, because val is 0", moved)
        names = ["train" if name == "val" else name for name in names]
        source_splits = [name for name in source_splits if name != "val"]
    splits: Splits = {
        name: table.subset([row for row, split_name in enumerate(names) if split_name == name])
        for name in ("train", "val", "test")
        if name in source_splits
    }
    fractions = {"val": 0.0 if "val" in source_splits else val, "test": 0.0 if "test" in source_splits else test or 0.0}
    if any(fractions.values()):
        by = "group" if any(table.group.tolist()) else "stratified"
        splits |= _split_off(splits["train"], fractions, seed, by)
    return {name: splits[name] for name in ("train", "val", "test") if name in splits}


def _split_off(table: AnnotationTable, fractions: dict[str, float], seed: int, by: str) -> Splits:
    """Split off the ``fractions`` that are above 0 from ``table``; "train" is the rest."""
    names = ["train", *(name for name, fraction in fractions.items() if fraction > 0)]
    if len(names) == 1:
        return {"train": table}
    if len(table) == 1:
        message = f"{', '.join(names)} have the same image, because there is only one"
        return dict.fromkeys(names, with_notes(table, message, [file_name(table, 0)]))
    units = group_rows(table) if by == "group" else [np.array([row]) for row in range(len(table))]
    if by == "group" and len(units) < len(names) and (table.frame >= 0).all():
        table = with_notes(table, CONSECUTIVE, [str(table.group[unit[0]]) for unit in units])
        units = [part for unit in units for part in _consecutive_parts(table, unit)]
    if len(units) < len(names):
        unit_name = "groups" if by == "group" else "images"
        raise DataError(
            f"{table.source}: {len(units)} {unit_name} cannot be split into {', '.join(names)}; "
            f"add {unit_name}, or request fewer splits"
            + (f" (first images: {first_names([file_name(table, int(unit[0])) for unit in units])})")
        )
    sizes = [max(1, round(fractions[name] * len(table))) for name in names[1:]]
    sizes = [max(1, len(table) - sum(sizes)), *sizes]
    if sum(sizes) > len(table):  # three images in three splits, for any fractions
        sizes[int(np.argmax(sizes))] -= sum(sizes) - len(table)
    presence = class_presence(table)
    split_of = assign_units(units, presence, sizes, np.random.default_rng(derive_seed(seed, _SPLIT)))
    split_of = _with_classes_in_train(split_of, np.array([presence[unit, 1:].any() for unit in units]))
    return {
        name: table.subset(np.sort(np.concatenate([units[u] for u in np.flatnonzero(split_of == index)])))
        for index, name in enumerate(names)
    }


def _consecutive_parts(table: AnnotationTable, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """``VIDEO_PARTS`` parts of the frames of a video, each of consecutive ones."""
    ordered = rows[np.argsort(table.frame[rows], kind="stable")]
    return [part for part in np.array_split(ordered, VIDEO_PARTS) if len(part)]


def _with_classes_in_train(split_of: npt.NDArray[np.int64], has_class: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Exchange a training unit for one with a class if no training unit has one: nothing could be learned from it."""
    train = np.flatnonzero(split_of == 0)
    if has_class[train].any() or not has_class.any():
        return split_of
    first, exchanged = train[0], int(np.flatnonzero(has_class)[0])
    split_of[first], split_of[exchanged] = split_of[exchanged], 0
    return split_of


def assign_units(
    units: Sequence[npt.NDArray[np.int64]],
    presence: npt.NDArray[np.bool_],
    sizes: Sequence[int],
    generator: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Assign units of images to splits: the largest units and those with the rarest class first, each to the split that
    lacks its classes most and has enough capacity left (after Sechidis et al., "On the stratification of multi-label
    data", ECML 2011; sizes are met exactly when every unit is one image).

    Args:
        units: rows of images that stay together; at least as many units as splits.
        presence: bool [I, C], the classes of each image.
        sizes: target number of images of each split; they sum to I.

    Returns:
        int64 [U]: index of the split of each unit; no split is empty.
    """
    counts = np.array([presence[rows].sum(axis=0) for rows in units], np.float64)
    lengths = np.array([len(rows) for rows in units])
    total = counts.sum(axis=0)
    rarity = np.where(counts > 0, total, np.inf).min(axis=1)
    weight = 1 / np.maximum(total, 1) ** 2  # a share of a rare class counts as much as the same share of a common one
    need = np.outer(np.array(sizes) / len(presence), total)
    capacity = np.array(sizes, np.float64)
    split_of = np.zeros(len(units), np.int64)
    shuffled = generator.permutation(len(units))
    for unit in shuffled[np.lexsort((rarity[shuffled], -lengths[shuffled]))]:
        fits = capacity >= lengths[unit]
        lack = np.round(need @ (counts[unit] * weight), 9)
        if fits.any():
            split = int(np.lexsort((-capacity, -lack, ~fits))[0])
        else:
            split = int(np.argmax(capacity))
        split_of[unit] = split
        need[split] -= counts[unit]
        capacity[split] -= lengths[unit]
    for split in range(len(sizes)):
        if not (split_of == split).any():  # large groups used all capacity: move the smallest unit of the fullest split
            fullest = int(np.argmax(np.bincount(split_of, minlength=len(sizes))))
            movable = np.flatnonzero(split_of == fullest)
            split_of[movable[np.argmin(lengths[movable])]] = split
    return split_of
