"""Check that the boxes of a data set are x, y, width, height in pixels; if not, suggest what they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detseg.annotations.image_files import first_few
from detseg.boxes import xyxy_to_xywh
from detseg.errors import DataError

Boxes = npt.NDArray[np.float64]
Sizes = npt.NDArray[np.int64]

BEYOND = 2.0
"""Pixels outside the image that are accepted as inaccurate annotation."""

SHARE, NUMBER = 0.05, 5
"""A data set is rejected when more than this share of its boxes, and at least this many, are wrong."""

EXPLAINED = 0.98
"""Share of all boxes that must be inside the image under another box format for it to be suggested."""


CORNERS, CENTRES, TOP_LEFT, NORMALISED = "corners", "centres", "top-left corners", "normalised"
_SUGGESTIONS = {
    CORNERS: "they look like corners x1, y1, x2, y2; write them as x, y, width, height (width = x2 - x1)",
    CENTRES: "they look like centre x, centre y, width, height; write the top-left corner (x - width / 2) instead",
}


class ImplausibleBoxes(DataError):
    """The boxes of a data set are not in the format of its annotations.

    Attributes:
        meaning: "corners", "centres", "top-left corners" or "normalised", what all of them are; "" if unknown.
    """

    def __init__(self, meaning: str, message: str) -> None:
        super().__init__(message)
        self.meaning = meaning


def check_plausible(boxes: Boxes, sizes_hw: Sizes, source: str) -> None:
    """Reject boxes that are not x, y, width, height in pixels.

    A few boxes that extend beyond the image are normal and are clipped one by one. Many of them, all explained by
    another box format (corners, centres, height and width exchanged), or many entirely outside, mean that the format is
    wrong, and training on the clipped boxes would fail silently.

    Args:
        boxes: float64 [N, 4] as written in the source, before clipping, in upright pixels.
        sizes_hw: int64 [N, 2] height and width of each box's image.
        source: name of the data set in the message.

    Raises:
        ImplausibleBoxes: with an example, the probable format and the remedy.
    """
    if looks_normalised(boxes, sizes_hw):
        raise ImplausibleBoxes(
            NORMALISED if _nearly_all_inside(from_normalised(boxes, sizes_hw), sizes_hw) else "",
            f"{source}: all {len(boxes)} boxes have numbers of at most {boxes.max():.4g}, in images of up to "
            f"{sizes_hw.max()} px: they look normalised to 0..1; multiply them by the width and height of the image",
        )
    beyond = pixels_outside(boxes, sizes_hw) > BEYOND
    if beyond.sum() < NUMBER or beyond.mean() <= SHARE:
        return
    suggestion = suggest_format(boxes, sizes_hw)
    outside = is_outside(boxes, sizes_hw)
    if not suggestion and (outside.sum() < NUMBER or outside.mean() <= SHARE):
        return  # annotated past the border, as objects that leave the image are: clipped and logged one by one
    first = int(np.flatnonzero(beyond)[0])
    example = ", ".join(f"{number:.6g}" for number in boxes[first])
    height, width = sizes_hw[first]
    remedy = suggestion or (
        "they do not belong to these images, or the images were resized after they were annotated; scale the "
        "boxes, or use the images that were annotated"
    )
    raise ImplausibleBoxes(
        next((meaning for meaning, text in _SUGGESTIONS.items() if text == suggestion), ""),
        f"{source}: {beyond.sum()} of {len(boxes)} boxes extend beyond the image by more than {BEYOND:g} px, such as "
        f"[{example}] in an image of {width} x {height} (width x height): {remedy}",
    )


def check_corner_order(boxes: Boxes, sizes_hw: Sizes, where: Sequence[str], source: str, remedy: str) -> None:
    """Reject corners of which many second ones are before the first, if they may as well be x, y, width, height.

    Args:
        boxes: float64 [N, 4] x, y, width, height of the corners in the source, which may be negative.
        sizes_hw: int64 [N, 2] height and width of each box's image.
        where: N names of the boxes in the message.
        source: name of the data set in the message.
        remedy: the end of the message.

    Raises:
        DataError: with the first examples.
    """
    exchanged = (boxes[:, 2:] < 0).any(axis=1)
    if exchanged.sum() < NUMBER or exchanged.mean() <= SHARE:
        return
    as_size = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if not _nearly_all_inside(as_size, sizes_hw):
        return
    examples = first_few([where[i] for i in np.flatnonzero(exchanged).tolist()])
    raise DataError(
        f"{source}: in {exchanged.sum()} of {len(boxes)} boxes the second corner is before the first "
        f"({examples}), and all would be inside their images as x, y, "
        f"width, height as well; {remedy}"
    )


def check_centres(boxes: Boxes, sizes_hw: Sizes, places: Sequence[str], source: str) -> None:
    """Reject boxes that are not centre x, centre y, width, height.

    Args:
        boxes: float64 [N, 4] as written in the source, in upright pixels.
        sizes_hw: int64 [N, 2] height and width of each box's image.
        places: N places of the boxes in the source, for the message.
        source: name of the data set in the message.

    Raises:
        ImplausibleBoxes: many boxes extend beyond the image, and nearly all are inside under another box format.
    """
    beyond = pixels_outside(from_centres(boxes), sizes_hw) > BEYOND
    if beyond.sum() < NUMBER or beyond.mean() <= SHARE:
        return
    meaning = CORNERS
    if _nearly_all_inside(from_corners(boxes), sizes_hw):
        suggestion = (
            "they look like corners x1, y1, x2, y2; write centre x, centre y, width, height: (x1 + x2) / 2, "
            "(y1 + y2) / 2, x2 - x1, y2 - y1"
        )
    elif _nearly_all_inside(boxes, sizes_hw):
        meaning = TOP_LEFT
        suggestion = "they look like the top-left corner and the size; write the centre instead (x + width / 2)"
    else:
        return
    raise ImplausibleBoxes(
        meaning,
        f"{source}: {beyond.sum()} of {len(boxes)} boxes extend beyond the image by more than {BEYOND:g} px, such as "
        f"{places[int(np.flatnonzero(beyond)[0])]}: {suggestion}",
    )


def looks_normalised(boxes: Boxes, sizes_hw: Sizes) -> bool:
    """Whether all numbers are in 0..1 (up to 1.01) and some are fractions, in images larger than 2 px."""
    if not len(boxes) or sizes_hw.max(axis=1).min() <= 2:
        return False
    return bool((np.abs(boxes) <= 1.01).all() and (boxes != np.round(boxes)).any())


def pixels_outside(boxes: Boxes, sizes_hw: Sizes) -> npt.NDArray[np.float64]:
    """float64 [N]: pixels by which each box extends beyond its image, at the worst side; 0 or less when inside."""
    far = boxes[:, :2] + boxes[:, 2:] - sizes_hw[:, ::-1]
    return np.maximum(far, -boxes[:, :2]).max(axis=1, initial=-np.inf)


def is_outside(boxes: Boxes, sizes_hw: Sizes) -> npt.NDArray[np.bool_]:
    """bool [N]: whether the whole box is outside its image."""
    near, far = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return np.asarray(((near >= sizes_hw[:, ::-1]) | (far <= 0)).any(axis=1))


def suggest_format(boxes: Boxes, sizes_hw: Sizes) -> str:
    """The box format under which nearly all boxes are inside the image, with the remedy; "" if there is none."""
    if _nearly_all_inside(from_corners(boxes), sizes_hw):
        return _SUGGESTIONS[CORNERS]
    if _nearly_all_inside(boxes, sizes_hw[:, ::-1]):
        return "they fit when width and height are exchanged; correct the width and height of the images"
    if _nearly_all_inside(from_centres(boxes), sizes_hw):
        return _SUGGESTIONS[CENTRES]
    return ""


def converted(boxes: Boxes, sizes_hw: Sizes, meaning: str) -> Boxes:
    """float64 [N, 4] x, y, width, height within the images, of boxes that are "corners", "centres" or "normalised"."""
    if meaning == NORMALISED:
        boxes = from_normalised(boxes, sizes_hw)
    else:
        boxes = from_corners(boxes) if meaning == CORNERS else from_centres(boxes)
    low = np.clip(boxes[:, :2], 0, sizes_hw[:, ::-1])
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, sizes_hw[:, ::-1])
    return np.concatenate([low, high - low], axis=1)


def from_corners(boxes: Boxes) -> Boxes:
    """float64 [N, 4] x, y, width, height of corners x1, y1, x2, y2."""
    return np.asarray(xyxy_to_xywh(boxes), np.float64)


def from_centres(boxes: Boxes) -> Boxes:
    """float64 [N, 4] x, y, width, height of centre x, centre y, width, height."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)


def from_normalised(boxes: Boxes, sizes_hw: Sizes) -> Boxes:
    """float64 [N, 4] in pixels, of x, y, width, height as shares of the image."""
    return boxes * np.tile(sizes_hw[:, ::-1], 2)


def _nearly_all_inside(boxes: Boxes, sizes_hw: Sizes) -> bool:
    good = (boxes[:, 2:] > 0).all(axis=1) & (pixels_outside(boxes, sizes_hw) <= BEYOND)
    return bool(good.mean() >= EXPLAINED)
