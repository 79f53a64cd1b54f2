"""Decide what the values of the masks of a data set mean, from the pixels of each value in a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from detseg.annotations.formats.masks.decode import MaskDecoder, is_lossy
from detseg.annotations.formats.masks.names import ValueNames, is_unused
from detseg.annotations.formats.masks.values import IGNORE, VALUES, count_regions, guess_values
from detseg.annotations.formats.shared.value_counts import (
    MIN_TOP,
    ValueCounts,
    add_counts,
    clear_values,
    count_values,
    has_rims,
    threshold_of,
    without_rims,
)
from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError

THREADS = 4
"""Threads that decode label images; the decoders release the GIL."""

SAMPLED_MASKS = 32
"""Number of masks read to decide the meaning of their values."""

MANY_REGIONS = 1.5
"""Regions per mask, on average, from which each region of a black-and-white mask is an object."""


@dataclass(frozen=True)
class Meaning:
    """What the values of all masks of a data set mean.

    Attributes:
        values: one of ``VALUES``.
        stated: the user stated them.
        threshold: value from which a pixel belongs to an object, in black-and-white masks with grey rims; else None.
        clear: the values of objects, in masks of several values with rims between them; else empty.
        ignored: with "class", the values that are no class.
        border: with "instance", 255 is a border.
        names: with "class", the names of 0, 1, 2, ... from a file beside the masks; else empty.
    """

    values: str
    stated: bool = False
    threshold: int | None = None
    clear: tuple[int, ...] = ()
    ignored: frozenset[int] = frozenset({0, IGNORE})
    border: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A mask of the sample: its different values, their pixels (None above 16 bits), and its regions that are apart."""

    values: frozenset[int]
    counts: ValueCounts | None
    regions: int


def sample_masks(decoder: MaskDecoder, masks: Sequence[str]) -> list[Sample]:
    """Up to ``SAMPLED_MASKS`` of the masks, evenly distributed."""

    def sample(mask: str) -> Sample:
        labels = decoder.decode(mask)
        counts = count_values(labels)
        if counts is None:
            return Sample(frozenset(np.unique(labels).tolist()), None, 0)
        top = max(counts.present)
        return Sample(
            counts.present, counts, count_regions(labels >= (max(1, (top + 1) // 2) if top >= MIN_TOP else 1))
        )

    sampled = masks[:: -(-len(masks) // SAMPLED_MASKS)]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(sample, sampled))


def decide(
    samples: Sequence[Sample],
    stated: str | None,
    several: bool,
    names: ValueNames | None,
    masks: Sequence[str],
    notes: RepairLog,
) -> Meaning:
    """The meaning of the values; what was decided is noted with its reason and the options that change it.

    Args:
        stated: the value of ``--mask-values``; None decides.
        several: an image has several mask files.
        names: the file with names of values, if there is one.
        masks: all mask files.

    Raises:
        DataError: ``stated`` is unknown, or JPEG masks of more than black and white.
    """
    if stated is not None and stated not in VALUES:
        raise DataError(f"unknown mask values {stated!r}; choose {', '.join(VALUES)}")
    counts = _counts_of(samples)
    meaning = _rims(counts)
    counts = _counts_without_rims(counts, meaning)
    value_sets = [sample.values & {0, *meaning.clear} if meaning.clear else sample.values for sample in samples]
    _check_lossy(masks, meaning, value_sets)
    by_value = names.by_value(counts) if names is not None and counts is not None and not meaning.threshold else None
    if by_value is not None and names is not None and len(names.classes) < 2:
        by_value = by_value if stated == "class" else None
    border, shares = _border(counts)
    if stated is not None:
        values, reason = stated, ""
    elif several:
        values, reason = "binary", "one image has several mask files"
    elif meaning.threshold is not None:
        values = "binary"
        reason = f"the masks are black and white with grey values between, which are divided at {meaning.threshold}"
    elif by_value is not None and names is not None:
        values, reason = "class", f"{names.file} has {len(names.classes)} names of classes, for the values in the masks"
    else:
        values, reason = guess_values(value_sets)
        reason += shares if IGNORE in frozenset().union(*value_sets) else ""
    if stated is None and values == "binary" and not several:
        values, reason = _regions_or_binary(samples, reason)
    if stated is None:
        others = " or ".join(other for other in VALUES if other != values)
        notes.add(f"mask values interpreted as {values}", f"{reason}; if that is wrong, pass --mask-values {others}")
    if names is not None and names.classes and by_value is None and values == "class":
        notes.add("names of values not used: the masks have other values", names.file)
    used_names = by_value if values == "class" else None
    return replace(
        meaning,
        values=values,
        stated=stated is not None,
        border=border,
        names=used_names or (),
        ignored=_ignored(values, stated, counts, border, used_names, notes),
    )


def _counts_of(samples: Sequence[Sample]) -> ValueCounts | None:
    counts = [sample.counts for sample in samples if sample.counts is not None]
    return add_counts(counts) if counts and len(counts) == len(samples) else None


def _rims(counts: ValueCounts | None) -> Meaning:
    """The rims in the masks, as a meaning that states only these."""
    meaning = Meaning("instance")
    if counts is None:
        return meaning
    threshold = threshold_of(counts)
    clear = clear_values(counts) if threshold is None and has_rims(counts) else []
    if len(clear) == 1 and clear[0] >= MIN_TOP:
        threshold = (clear[0] + 1) // 2
    return replace(meaning, threshold=threshold, clear=() if threshold is not None else tuple(clear))


def _counts_without_rims(counts: ValueCounts | None, rims: Meaning) -> ValueCounts | None:
    if counts is None or (rims.threshold is None and not rims.clear):
        return counts
    return without_rims(counts, rims.clear or [max(counts.present)])


def _check_lossy(masks: Sequence[str], meaning: Meaning, value_sets: Sequence[frozenset[int]]) -> None:
    lossy = [mask for mask in masks if is_lossy(mask)]
    if lossy and meaning.threshold is None and len(frozenset().union(*value_sets) - {0}) > 1:
        raise DataError(
            f"{lossy[0]}: a lossy format such as JPEG changes values, so only black-and-white masks can be stored in "
            f"it, but these {len(lossy)} masks have more than two values; export them again as PNG"
        )


def _regions_or_binary(samples: Sequence[Sample], reason: str) -> tuple[str, str]:
    """Whether regions are objects, with their number."""
    regions = [sample.regions for sample in samples if sample.regions]
    reason = reason.removesuffix(", so each is one object")
    counted = f"{sum(regions)} separate regions in {len(regions)} masks"
    if sum(regions) >= MANY_REGIONS * max(1, len(regions)):
        return "regions", f"{reason}; {counted}, so each region is one object"
    return "binary", f"{reason}, so each is one object" + (f" ({counted})" if regions else "")


def _border(counts: ValueCounts | None) -> tuple[bool, str]:
    """Whether 255 is ignored because the other values are small and have more pixels; and the numbers, for the note."""
    if counts is None or len(counts.pixels) != IGNORE + 1:
        return False, ""
    others = [value for value in counts.present if 0 < value < IGNORE]
    pixels, of_others = int(counts.pixels[IGNORE]), int(counts.pixels[others].sum())
    if not others or not pixels or counts.pixels[IGNORE - 1]:
        return False, ""
    small = max(others) < 100 or 2 * len(others) > max(others)
    if small and pixels < of_others:
        return True, f"; 255 has {pixels} pixels, the smaller values {of_others}, so 255 is ignored"
    return False, f"; 255 has {pixels} pixels, the other values {of_others}, so 255 is not ignored"


def _ignored(
    values: str,
    stated: str | None,
    counts: ValueCounts | None,
    border: bool,
    names: tuple[str, ...] | None,
    notes: RepairLog,
) -> frozenset[int]:
    """With "class", the values that are no class.

    255 is ignored if ``border`` says so. If "class" was stated, it is ignored as well where the others are small: the
    user may mean an ignored area that is larger than all objects.
    """
    if values != "class":
        return frozenset({0, IGNORE})
    present = counts.present if counts is not None else frozenset()
    others = [value for value in present if 0 < value < IGNORE]
    keeps_255 = bool(others) and not border and names is None and (stated is None or max(others) >= 100)
    if IGNORE in present and keeps_255 and stated is not None:
        notes.add("255 read as a class, as the other values are not small", f"values {sorted(others)[:5]}")
    ignored = {0} if keeps_255 or len(names or ()) > IGNORE else {0, IGNORE}
    for value, name in enumerate(names or ()):
        if value == 0 and not is_unused(name):
            ignored.discard(0)
            notes.add(
                "0 read as a class, not as background",
                f"{name}; to read 0 as background, name 1, 2, ... with --classes",
            )
        elif is_unused(name) and value:
            ignored.add(value)
            if value in present:
                notes.add("value whose name is not a class ignored", f"{value} ({name})")
    return frozenset(ignored)
