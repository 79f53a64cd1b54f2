"""Interpret the values of label images, and extract the instances."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.value_counts import Labels
from detseg.postprocess import crop_rle
from detseg.structures import RLE

VALUES = ("instance", "class", "binary", "regions")

IGNORE = 255
"""Value of pixels without a class, such as the border of an object, in Pascal VOC and formats derived from it."""

MIN_REGION = 16
"""Pixels: a smaller connected region of a class is treated as a brush artifact, not as an object."""

FEW = 32
"""Maximum number of different values in all label images together for values that are classes."""


def guess_values(value_sets: Sequence[frozenset[int]]) -> tuple[str, str]:
    """Guess the meaning of mask values from the values in each image: ("instance" | "class" | "binary", reason)."""
    objects = [values - {0} for values in value_sets if values - {0}]
    all_values = frozenset().union(*objects)
    if len(all_values) > 1 and all_values <= {1, IGNORE} and all(len(values) == 1 for values in objects):
        ones = sum(values == {1} for values in objects)
        return "binary", f"{ones} masks contain only 0 and 1, {len(objects) - ones} only 0 and {IGNORE}"
    if not objects or (len(all_values) == 1 and (1 in all_values or max(all_values) >= 64)):
        return "binary", f"every mask contains only 0 and {max(all_values, default=0)}, so each is one object"
    if IGNORE in all_values and not any(100 <= value < IGNORE for value in all_values):
        return "class", "255 occurs together with small values"
    if len(all_values) <= FEW and len(objects) > 1:
        gaps = sum(max(values) != len(values) for values in objects)
        if gaps:
            return "class", f"{gaps} of {len(objects)} masks skip values, and all use the same {len(all_values)}"
        if len(all_values) > 1 and all(values == all_values for values in objects):
            return "class", f"all masks contain the same {len(all_values)} values"
    return "instance", "values count from 1 in each mask, up to a different number in each"


def instances_by_value(values: Labels, *, border: bool | None = None) -> list[tuple[int, RLE]]:
    """(value, RLE) of every non-zero value of an [H, W] image, by value. One value is one instance, even if it has
    several regions.

    Args:
        border: 255 is a border, as in Pascal VOC, and left out where it is not the only value; None: if
            :func:`has_border` says so.
    """
    if has_border(values) if border is None else border:
        kept = np.where(values == IGNORE, 0, values)
        values = kept if kept.any() else values
    return _by_value(values)


def has_border(values: Labels) -> bool:
    """Whether 255 is a border: it occurs with only smaller values up to 253, which have more pixels together."""
    if values.dtype != np.uint8:
        return False
    counts = np.bincount(values.ravel(), minlength=IGNORE + 1)
    return bool(counts[IGNORE] and not counts[IGNORE - 1] and counts[IGNORE] < counts[1:IGNORE].sum())


def regions_by_class(
    values: Labels, ignored: Collection[int] = (0, IGNORE)
) -> tuple[list[tuple[int, RLE]], list[tuple[int, int]]]:
    """Connected regions (8-connectivity) of every class in an [H, W] image.

    Args:
        ignored: values that are no class.

    Returns:
        (value, RLE) of the regions, by value; and (value, pixels) of the regions that were dropped because they are
        smaller than ``MIN_REGION``.
    """
    regions: list[tuple[int, RLE]] = []
    dropped: list[tuple[int, int]] = []
    size_hw = (values.shape[0], values.shape[1])
    for value in _present(values):
        if value in ignored:
            continue
        mask = (values == value).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        left, top, right, bottom = left & ~1, top & ~1, left + width, top + height
        # Even offsets: OpenCV numbers regions by blocks of 2 x 2 pixels, so the order is that of the whole image.
        count, components, stats, _ = cv2.connectedComponentsWithStats(mask[top:bottom, left:right], connectivity=8)
        for number in range(1, count):
            x, y, width, height, pixels = stats[number].tolist()
            if pixels < MIN_REGION:
                dropped.append((value, pixels))
                continue
            crop = components[y : y + height, x : x + width] == number
            regions.append((value, crop_rle(crop, top + y, left + x, size_hw)))
    return regions, dropped


def count_regions(foreground: npt.NDArray[np.bool_]) -> int:
    """Number of regions that are apart (at least three pixels between them) and not specks beside the largest one."""
    grown = cv2.dilate(foreground.astype(np.uint8), np.ones((3, 3), np.uint8))
    count, components = cv2.connectedComponents(grown, connectivity=8)
    if count == 1:
        return 0
    areas = np.bincount(components[foreground], minlength=count)[1:]
    return int((areas >= max(MIN_REGION, areas.max() / 20)).sum())


def _present(values: Labels) -> list[int]:
    """The different values of an image, in ascending order."""
    if values.max() > 2**20:
        return np.unique(values).tolist()
    return np.flatnonzero(np.bincount(values.ravel())).tolist()


def _by_value(values: Labels) -> list[tuple[int, RLE]]:
    rows, columns = np.nonzero(values)
    if not len(rows):
        return []
    ids, index = unique_with_index(values[rows, columns])
    bounds = np.empty((len(ids), 4), np.int64)  # top, left, bottom, right of each value
    bounds[:, :2], bounds[:, 2:] = max(values.shape), -1
    for axis, positions in enumerate((rows, columns)):
        np.minimum.at(bounds[:, axis], index, positions)
        np.maximum.at(bounds[:, axis + 2], index, positions)
    size_hw = (values.shape[0], values.shape[1])
    return [
        (int(value), crop_rle(values[top : bottom + 1, left : right + 1] == value, top, left, size_hw))
        for value, (top, left, bottom, right) in zip(ids.tolist(), bounds.tolist(), strict=True)
    ]


def unique_with_index(values: Labels) -> tuple[Labels, npt.NDArray[np.intp]]:
    """The different values in ascending order, and the index of each element's value in them."""
    if values.max() > 2**20:
        return np.unique(values, return_inverse=True)
    ids = np.flatnonzero(np.bincount(values))  # ten times faster than sorting millions of pixels
    index_of = np.zeros(ids[-1] + 1, np.intp)
    index_of[ids] = np.arange(len(ids))
    return ids, index_of[values]
