"""Divide a mask of one kind of object into object and background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.formats.shared.value_counts import Labels, count_values, threshold_of
from detseg.annotations.repair_log import RepairLog


def foreground(labels: Labels, where: str, notes: RepairLog, threshold: int | None = None) -> npt.NDArray[np.bool_]:
    """The pixels of objects, [H, W]: all that are not 0, or in a black-and-white mask with grey rims, noted, those from
    the threshold up.

    Args:
        labels: values from 0 up, [H, W].
        where: the mask in notes.
        threshold: that of all masks of the data set; None: that of this mask, if its rims are grey.
    """
    counts = count_values(labels)
    if counts is None or counts.present <= {0}:
        return labels != 0
    threshold = threshold_of(counts) if threshold is None else threshold
    if threshold is None:
        return labels != 0
    grey = int(counts.pixels[1:-1].sum())
    if grey:
        notes.add(f"grey values of a mask divided at {threshold} into background and object", f"{where}: {grey} pixels")
    return labels >= threshold
