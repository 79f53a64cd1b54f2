"""Convert CVAT's masks to RLE. Time and memory grow with the number of runs, not with the size that a file states."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.structures import RLE


def row_runs_rle(
    runs: npt.NDArray[np.int64], top: int, left: int, box_hw: tuple[int, int], size_hw: tuple[int, int]
) -> RLE:
    """The RLE of a mask that is given as runs row by row.

    Args:
        runs: int64 [R] of at least 0, lengths of zeros, ones, zeros, ... that add up to the pixels of the box.
        top, left: row and column of the box, which is inside of the image.
        box_hw: height and width of the box.
        size_hw: height and width of the image.
    """
    image_height, image_width = size_hw
    height, width = box_hw
    ends = np.cumsum(runs)
    # Rows inside of one run are equal: the first of them stands for all.
    first, last = -(-(ends - runs) // width), ends // width
    full = np.maximum(last - first, 0)
    repeated = np.flatnonzero(full > 1)
    shorter = runs.copy()
    shorter[repeated] -= (full[repeated] - 1) * width
    kept = np.ones(height, np.bool_)
    for row, count in zip(first[repeated].tolist(), full[repeated].tolist(), strict=True):
        kept[row + 1 : row + count] = False
    rows = np.flatnonzero(kept)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, shorter).reshape(len(rows), width)
    # A zero before every column separates the columns, so each change of value is the start or the end of a run.
    separated = np.zeros(width * (len(rows) + 1) + 1, np.bool_)
    separated[:-1].reshape(width, len(rows) + 1)[:, 1:] = pixels.T
    column, row = np.divmod(np.flatnonzero(separated[1:] != separated[:-1]), len(rows) + 1)
    bounds = (left + column) * image_height + top + np.append(rows, height)[row]
    # A run that ends at the bottom edge and one that starts at the top of the next column are one run.
    joined = np.flatnonzero(bounds[1:-1:2] == bounds[2::2])
    bounds = np.delete(bounds, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    counts = np.diff(bounds, prepend=0, append=image_height * image_width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RLE = coco_mask.frPyObjects({"size": [image_height, image_width], "counts": counts}, *size_hw)
    return rle
