"""Do all boxes of a data set together look like pixels x, y, width, height? If not, what are they?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError

Boxes = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]

BEYOND = 2.0
"""Pixels past the frame that are still put down to careless drawing."""

SHARE, NUMBER = 0.05, 5
"""A set is suspect when more than this share of its boxes, and at least this many, are wrong."""

EXPLAINED = 0.98
"""Share of all boxes that another reading must bring inside the frame to be offered as the explanation."""


def check_plausible(boxes: Boxes, sizes_hw: Sizes, source: str) -> None:
    """Refuse a set of boxes that was written in other terms than x, y, width, height in pixels.

    A few boxes beyond the frame are normal and are clipped one by one. Many of them, all explained by one other
    reading (corners, centres, height and width exchanged), or many entirely outside, are a set that was misread, and
    training on its clipped remains would fail without a word.

    Args:
        boxes: float64 [N, 4] as given, before clipping, in upright pixels.
        sizes_hw: int64 [N, 2] height and width of each box's image.
        source: what the message calls the data set.

    Raises:
        DataError: with the evidence, the guess and the remedy.
    """
    if looks_normalised(boxes, sizes_hw):
        raise DataError(
            f"{source}: all {len(boxes)} boxes have numbers of at most {boxes.max():.4g}, in images of up to "
            f"{sizes_hw.max()} px: they look normalised to 0..1; multiply them by the width and height of the image"
        )
    beyond = beyond_frame(boxes, sizes_hw) > BEYOND
    if beyond.sum() < NUMBER or beyond.mean() <= SHARE:
        return
    reading = other_reading(boxes, sizes_hw)
    outside = is_outside(boxes, sizes_hw)
    if not reading and (outside.sum() < NUMBER or outside.mean() <= SHARE):
        return  # drawn past the frame, as objects that walk out of a video are: clipped and noted one by one
    first = int(np.flatnonzero(beyond)[0])
    example = ", ".join(f"{number:.6g}" for number in boxes[first])
    height, width = sizes_hw[first]
    remedy = reading or (
        "they do not belong to these images, or the images were resized after they were annotated; scale the "
        "boxes, or give the images that were annotated"
    )
    raise DataError(
        f"{source}: {beyond.sum()} of {len(boxes)} boxes reach beyond the frame by more than {BEYOND:g} px, such as "
        f"[{example}] in an image of {width} x {height} (width x height): {remedy}"
    )


def looks_normalised(boxes: Boxes, sizes_hw: Sizes) -> bool:
    """Whether all numbers lie in 0..1 (with a little slack) and some are fractions, in images larger than 2 px."""
    if not len(boxes) or sizes_hw.max(axis=1).min() <= 2:
        return False
    return bool((np.abs(boxes) <= 1.01).all() and (boxes != np.round(boxes)).any())


def beyond_frame(boxes: Boxes, sizes_hw: Sizes) -> npt.NDArray[np.float64]:
    """float64 [N]: how many pixels each box reaches beyond its frame, at the worst side; 0 or less when inside."""
    far = boxes[:, :2] + boxes[:, 2:] - sizes_hw[:, ::-1]
    return np.maximum(far, -boxes[:, :2]).max(axis=1, initial=-np.inf)


def is_outside(boxes: Boxes, sizes_hw: Sizes) -> npt.NDArray[np.bool_]:
    """bool [N]: whether the whole box lies outside its frame."""
    near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return np.asarray(((near >= sizes_hw[:, ::-1]) | (far <= 0)).any(axis=1))


def other_reading(boxes: Boxes, sizes_hw: Sizes) -> str:
    """What the boxes are if one other reading brings nearly all of them inside, with the remedy; "" if none does."""
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    if _fits(corners, sizes_hw):
        return "they look like corners x1, y1, x2, y2; write them as x, y, width, height (width = x2 - x1)"
    if _fits(boxes, sizes_hw[:, ::-1]):
        return "they fit when width and height are exchanged; correct the width and height of the images"
    centres = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
    if _fits(centres, sizes_hw):
        return "they look like centre x, centre y, width, height; give the top-left corner (x - width / 2) instead"
    return ""


def _fits(boxes: Boxes, sizes_hw: Sizes) -> bool:
    good = (boxes[:, 2:] > 0).all(axis=1) & (beyond_frame(boxes, sizes_hw) <= BEYOND)
    return bool(good.mean() >= EXPLAINED)
