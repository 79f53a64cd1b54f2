"""Interpret the values of label images, and extract the instances."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from detseg.postprocess import crop_rle
from detseg.structures import RLE

Labels = npt.NDArray[np.integer]

VALUES = ("instance", "class", "binary")

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
    if not objects or all_values in ({1}, {IGNORE}):
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


def instances_by_value(values: Labels) -> list[tuple[int, RLE]]:
    """(value, RLE) of every non-zero value of an [H, W] image, by value. One value is one instance, even if it has
    several regions. 255 together with only smaller values up to 253 is a border, as in Pascal VOC, and left out."""
    present = np.unique(values)
    if values.dtype == np.uint8 and len(present) > 2 and present[-1] == IGNORE and present[-2] < IGNORE - 1:
        values = np.where(values == IGNORE, 0, values)
    return _by_value(values)


def regions_by_class(values: Labels) -> tuple[list[tuple[int, RLE]], list[tuple[int, int]]]:
    """Connected regions (8-connectivity) of every class in an [H, W] image; 0 is background, 255 ignored.

    Returns:
        (value, RLE) of the regions, by value; and (value, pixels) of the regions that were dropped because they are
        smaller than ``MIN_REGION``.
    """
    regions = np.zeros(values.shape, np.int32)
    class_of = [0]
    dropped: list[tuple[int, int]] = []
    for value in np.unique(values).tolist():
        if value in (0, IGNORE):
            continue
        count, components, stats, _ = cv2.connectedComponentsWithStats(
            (values == value).astype(np.uint8), connectivity=8
        )
        region_number = np.zeros(count, np.int32)
        for component in range(1, count):
            pixels = int(stats[component, cv2.CC_STAT_AREA])
            if pixels < MIN_REGION:
                dropped.append((value, pixels))
            else:
                region_number[component] = len(class_of)
                class_of.append(value)
        regions += region_number[components]
    return [(class_of[number], rle) for number, rle in _by_value(regions)], dropped


def _by_value(values: Labels) -> list[tuple[int, RLE]]:
    rows, columns = np.nonzero(values)
    if not len(rows):
        return []
    ids, index = _unique_with_index(values[rows, columns])
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


def _unique_with_index(values: Labels) -> tuple[Labels, npt.NDArray[np.intp]]:
    """The different values in ascending order, and the index of each element's value in them."""
    if values.max() > 2**20:
        return np.unique(values, return_inverse=True)
    ids = np.flatnonzero(np.bincount(values))  # ten times faster than sorting millions of pixels
    index_of = np.zeros(ids[-1] + 1, np.intp)
    index_of[ids] = np.arange(len(ids))
    return ids, index_of[values]
