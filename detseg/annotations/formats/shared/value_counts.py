"""Count the values of label images, and tell clear values from the rims that resizing, blurring and JPEG leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.int64]

MIN_TOP = 64
"""The smallest value of an object in a grey image of objects on black; below it, values are numbers of something."""

MIN_SOLID = 9
"""Pixels: a clear value has at least this many pixels whose neighbours all have the same value."""

_MAX_COUNTED = 2**16
_MANY = 8  # different values, from which rims are looked for in the image before it was enlarged
_MAX_REPEATS = 8
_MIN_SIDE = 32
_SQUARE = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class ValueCounts:
    """Pixels of each value 0, 1, 2, ... of one or several label images.

    In an image that was enlarged by whole numbers, ``solid`` and ``slope`` are those of the small image, times the
    pixels that each of its pixels became.

    Attributes:
        pixels: all pixels of the value.
        solid: those whose 8 neighbours have the same value: the inside of something.
        slope: those with both a lower and a higher neighbour: the rim of something, or where values touch.
    """

    pixels: Counts
    solid: Counts
    slope: Counts

    @property
    def present(self) -> frozenset[int]:
        return frozenset(np.flatnonzero(self.pixels).tolist())


def count_values(labels: Labels) -> ValueCounts | None:
    """Counts of an [H, W] image; None if its values are not in 0..65535: grey levels are, numbers need not be."""
    highest = int(labels.max())
    if highest >= _MAX_COUNTED or labels.min() < 0:
        return None
    pixels = np.bincount(labels.ravel(), minlength=highest + 1)
    rows, columns = _repeats(labels) if np.count_nonzero(pixels) >= _MANY else (1, 1)
    small = labels[::rows, ::columns]
    lower, higher = _lowest_and_highest(small)
    solid = np.bincount(small[lower == higher], minlength=highest + 1)
    slope = np.bincount(small[(lower < small) & (small < higher)], minlength=highest + 1)
    if rows * columns > 1:
        solid = np.where(solid < MIN_SOLID, 0, solid)
    return ValueCounts(pixels, solid * rows * columns, slope * rows * columns)


def add_counts(counts: Sequence[ValueCounts]) -> ValueCounts:
    """The counts of all images together."""
    length = max((len(item.pixels) for item in counts), default=1)
    total = np.zeros((3, length), np.int64)
    for item in counts:
        total[:, : len(item.pixels)] += (item.pixels, item.solid, item.slope)
    return ValueCounts(*total)


def clear_values(counts: ValueCounts) -> list[int]:
    """The values other than 0 that fill areas; the others are rims, noise or thin objects."""
    clear = (counts.solid >= MIN_SOLID) & (5 * counts.solid >= counts.pixels)
    return [value for value in np.flatnonzero(clear).tolist() if value]


def threshold_of(counts: ValueCounts) -> int | None:
    """The value from which pixels are objects, if these are black-and-white masks with grey rims or noise, else None.

    The highest value must be at least ``MIN_TOP``, with no clear value between the lowest eighth of the range (black)
    and the highest (white). The values between must be rims, not thin objects: many of their pixels are slopes, and
    they are fewer than half of all pixels.
    """
    pixels, solid = counts.pixels, counts.solid
    top = max(counts.present)
    margin = top // 8
    low, middle, high = slice(0, margin + 1), slice(margin + 1, top - margin), slice(top - margin, top + 1)
    grey = int(pixels[middle].sum() + pixels[high].sum() - pixels[top])
    dark = int(pixels[low].sum() - pixels[0])
    if top < MIN_TOP or grey + dark == 0 or _are_numbers(counts):
        return None
    if any(margin < value < top - margin for value in clear_values(counts)):
        return None
    rims = int(pixels[middle].sum())
    if 2 * rims > pixels.sum() or (20 * rims > pixels[high].sum() and 5 * counts.slope[middle].sum() < 2 * rims):
        return None
    if not grey:  # such as 0, 1 and 255: stray pixels if they are few, otherwise a class
        return (top + 1) // 2 if 50 * dark <= pixels[top] and not clear_values(counts)[:-1] else None
    black = int(np.argmax(pixels[low]))  # JPEG at low quality shifts the black of the background
    filled = (solid[low] >= MIN_SOLID) & (2 * solid[low] >= pixels[low])
    filled[[0, black if black <= 8 else 0]] = False
    return None if filled.any() else (top + 1) // 2


def has_rims(counts: ValueCounts) -> bool:
    """Whether most values are rims between the clear ones, so that the image was resized or blurred."""
    clear = clear_values(counts)
    others = sorted(counts.present - {0, *clear})
    if not clear or len(others) < max(3, len(clear)) or _are_numbers(counts):
        return False
    return bool(5 * counts.slope[others].sum() >= 2 * counts.pixels[others].sum())


def without_rims(counts: ValueCounts, kept: Sequence[int]) -> ValueCounts:
    """The counts of 0 and of the values in ``kept`` only."""
    selected = np.zeros(len(counts.pixels), np.int64)
    selected[[0, *kept]] = 1
    return ValueCounts(counts.pixels * selected, counts.solid * selected, counts.slope * selected)


def nearest_clear(labels: Labels, clear: Sequence[int]) -> tuple[Labels, int]:
    """The image with the rims between its values given to the value of the nearest other pixel, and their pixels.

    Rims are the pixels that are neither 0 nor a clear value, and those between a lower and a higher neighbour, which
    may have a clear value by chance.
    """
    lower, higher = _lowest_and_highest(labels)
    rim = ~np.isin(labels, [0, *clear]) | ((lower < labels) & (labels < higher))
    changed = int(np.count_nonzero(rim))
    if not changed or changed == rim.size:
        return (np.zeros_like(labels) if changed else labels), changed
    _, nearest = cv2.distanceTransformWithLabels(rim.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    value_of = np.zeros(int(nearest.max()) + 1, labels.dtype)
    value_of[nearest[~rim]] = labels[~rim]
    return value_of[nearest], changed


def _are_numbers(counts: ValueCounts) -> bool:
    """Whether most of the numbers up to a highest value that is no grey level occur, as do the numbers of objects."""
    top = max(counts.present)
    return 255 < top < 2**14 and 2 * len(counts.present) > top


def _repeats(labels: Labels) -> tuple[int, int]:
    """How many equal rows and columns follow each other everywhere; 1 and 1 unless the image may have been enlarged."""
    repeats = []
    for axis, side in enumerate(labels.shape):
        changes = np.flatnonzero((np.diff(labels, axis=axis) != 0).any(axis=1 - axis)) + 1
        repeat = int(np.gcd.reduce([*changes.tolist(), side]))
        repeats.append(repeat)
        if not 1 < repeat <= _MAX_REPEATS or side // repeat < _MIN_SIDE:
            return 1, 1
    return repeats[0], repeats[1]


def _lowest_and_highest(labels: Labels) -> tuple[Labels, Labels]:
    """The lowest and the highest value of each pixel and its 8 neighbours; values below 2**16."""
    narrow = labels if labels.dtype in (np.uint8, np.uint16) else labels.astype(np.uint16)  # OpenCV has no int32
    return cv2.erode(narrow, _SQUARE), cv2.dilate(narrow, _SQUARE)
