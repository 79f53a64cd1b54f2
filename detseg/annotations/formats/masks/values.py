"""What the numbers in a label image mean, and the instances that they make."""

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
"""Pixels without a class, such as the border of an object, in Pascal VOC and its descendants."""

MIN_REGION = 16
"""Pixels: a smaller connected region of a class is taken for a speck of the brush, not for an object."""

FEW = 32
"""Different values in all label images together, up to which they may be classes."""


def guess_values(found: Sequence[frozenset[int]]) -> tuple[str, str]:
    """What the values of label images mean, one image a set of values: ("instance" | "class" | "binary", why)."""
    objects = [values - {0} for values in found if values - {0}]
    together = frozenset().union(*objects)
    if not objects or together in ({1}, {IGNORE}):
        return "binary", f"every mask holds 0 and {max(together, default=0)} only, so each is one object"
    if IGNORE in together and not any(100 <= value < IGNORE for value in together):
        return "class", "255 stands beside small values"
    if len(together) <= FEW and len(objects) > 1:
        gaps = sum(max(values) != len(values) for values in objects)
        if gaps:
            return "class", f"{gaps} of {len(objects)} masks leave values out, and all use the same {len(together)}"
        if len(together) > 1 and all(values == together for values in objects):
            return "class", f"all masks hold the same {len(together)} values"
    return "instance", "values count from 1 in each mask, to another number in each"


def instances_by_value(values: Labels) -> list[tuple[int, RLE]]:
    """(value, RLE) of every non-zero value of an [H, W] image, by value. One value is one instance, however many
    pieces it has. 255 beside other values that stop well below it is a border, as in Pascal VOC, and left out."""
    present = np.unique(values)
    if values.dtype == np.uint8 and len(present) > 2 and present[-1] == IGNORE and present[-2] < IGNORE - 1:
        values = np.where(values == IGNORE, 0, values)
    return _by_value(values)


def regions_by_class(values: Labels) -> tuple[list[tuple[int, RLE]], list[tuple[int, int]]]:
    """Connected regions (8 neighbours) of every class of an [H, W] image; 0 is background, 255 ignored.

    Returns:
        (value, RLE) of the regions, by value; and (value, pixels) of those that were dropped for being smaller than
        ``MIN_REGION``.
    """
    regions = np.zeros(values.shape, np.int32)
    class_of = [0]
    dropped: list[tuple[int, int]] = []
    for value in np.unique(values).tolist():
        if value in (0, IGNORE):
            continue
        number, parts, stats, _ = cv2.connectedComponentsWithStats((values == value).astype(np.uint8), connectivity=8)
        new_number = np.zeros(number, np.int32)
        for part in range(1, number):
            pixels = int(stats[part, cv2.CC_STAT_AREA])
            if pixels < MIN_REGION:
                dropped.append((value, pixels))
            else:
                new_number[part] = len(class_of)
                class_of.append(value)
        regions += new_number[parts]
    return [(class_of[number], rle) for number, rle in _by_value(regions)], dropped


def _by_value(values: Labels) -> list[tuple[int, RLE]]:
    rows, columns = np.nonzero(values)
    if not len(rows):
        return []
    ids, number = _numbered(values[rows, columns])
    bounds = np.empty((len(ids), 4), np.int64)  # top, left, bottom, right of each value
    bounds[:, :2], bounds[:, 2:] = max(values.shape), -1
    for axis, places in enumerate((rows, columns)):
        np.minimum.at(bounds[:, axis], number, places)
        np.maximum.at(bounds[:, axis + 2], number, places)
    size_hw = (values.shape[0], values.shape[1])
    return [
        (int(value), crop_rle(values[top : bottom + 1, left : right + 1] == value, top, left, size_hw))
        for value, (top, left, bottom, right) in zip(ids.tolist(), bounds.tolist(), strict=True)
    ]


def _numbered(values: Labels) -> tuple[Labels, npt.NDArray[np.intp]]:
    """The different values in ascending order, and the place of each value among them."""
    if values.max() > 2**20:
        return np.unique(values, return_inverse=True)
    ids = np.flatnonzero(np.bincount(values))  # ten times faster than to sort millions of pixels
    place = np.zeros(ids[-1] + 1, np.intp)
    place[ids] = np.arange(len(ids))
    return ids, place[values]
