"""Measure objects at the input size of a network, and find the size at which few are too small to be detected."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable
from detseg.preprocess import Preprocessing

TOO_SMALL = 8.0
"""Side in pixels of the network's input: two pixels of the finest feature map (stride 4); smaller objects are hardly
visible in it."""

MANY = 0.25
"""Share of the training objects that may be too small before it is said, and before a larger input is chosen."""

STEP = 32
"""Input sizes are multiples of it: the stride of the networks."""

LARGEST = 1600
"""Largest input size that is proposed: twice that of torchvision's training; more is slow, and fills the memory."""


def input_sides(table: AnnotationTable, preprocessing: Preprocessing) -> npt.NDArray[np.float64]:
    """float64 [N]: square root of the box area of each training object, in pixels of the network's input."""
    rows, instances = table.trained_rows(), table.instance_rows()
    images = np.repeat(np.arange(len(table)), table.instances_per_image())
    trained = ~(table.iscrowd[instances] | table.ignore[instances])
    scales = _scales(table, preprocessing)[images[trained]]
    return np.asarray(np.sqrt(table.boxes_xywh[rows, 2] * table.boxes_xywh[rows, 3]) * scales, np.float64)


def share_too_small(sides: npt.NDArray[np.float64]) -> float:
    """Share of the objects that are too small, 0..1; 0 without objects."""
    return float((sides < TOO_SMALL).mean()) if len(sides) else 0.0


def helpful_size(sides: npt.NDArray[np.float64], size: int) -> int:
    """Smallest input size at which at most the share ``MANY`` of the objects is too small; ``size`` if it is enough.

    Args:
        sides: of :func:`input_sides` at the input size ``size``; they are proportional to it.
    """
    if share_too_small(sides) <= MANY:
        return size
    largest_of_these = np.sort(sides)[int(MANY * len(sides))]
    return int(-(-(size * TOO_SMALL / largest_of_these) // STEP)) * STEP


def too_small_line(sides: npt.NDArray[np.float64], size: int, whose: str = "") -> str:
    """One line if more than the share ``MANY`` of the training objects is too small, with the size that helps; else "".

    Args:
        sides: of :func:`input_sides` at the input size ``size``.
        whose: a remark on the size, such as "the default on a CPU".
    """
    share, helpful = share_too_small(sides), helpful_size(sides, size)
    if share <= MANY:
        return ""
    remedy = f"train with --image-size {helpful}"
    if helpful > LARGEST:
        remedy = f"an input size of {helpful} px would be needed; cut the images into parts, or annotate larger objects"
    return (
        f"{round(share * len(sides))} of {len(sides)} training objects ({share:.0%}) are smaller than {TOO_SMALL:g} px "
        f"(square root of the box area) at an input size of {size} px{f' ({whose})' if whose else ''}, so they are "
        f"hardly visible to the network: {remedy}"
    )


def _scales(table: AnnotationTable, preprocessing: Preprocessing) -> npt.NDArray[np.float64]:
    """float64 [I]: scale of each image; that of the square root of its area if both sides are stretched."""
    if preprocessing.tiling is not None:
        return np.full(len(table), preprocessing.min_size / preprocessing.tiling.size)
    sides = np.stack([table.height, table.width], axis=1).astype(np.float64)
    if preprocessing.stretch:
        return preprocessing.min_size / np.sqrt(sides.prod(axis=1))
    scales = preprocessing.min_size / sides.min(axis=1)
    return np.minimum(scales, preprocessing.max_size / sides.max(axis=1)) if preprocessing.max_size else scales
