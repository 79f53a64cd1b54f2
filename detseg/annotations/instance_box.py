"""Decide the box of an instance: as stated, around its outline, with its corners sorted, or around its keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.annotations.segmentation import Segmentation
from detseg.boxes import clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from detseg.masks import Outline, segmentation_box

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""

MIN_SIDE = 8.0
"""Pixels: minimum width and height of a box around landmarks. An object smaller than one cell of the finest feature
map cannot be detected; a box around a single landmark, or two at the same height, would have no area."""

ROTATED_BOX = "rotated box replaced by its axis-aligned bounding box"
SORTED = "box with exchanged corners or a negative size read with its corners sorted"


def choose_box(
    stated: Sequence[float] | npt.NDArray[np.floating] | None,
    segmentation: Segmentation,
    keypoints: npt.NDArray[np.floating] | None,
    size_hw: tuple[int, int],
    where: str,
    notes: RepairLog,
) -> Box | None:
    """The box of one instance; None if there is nothing to take it from. It may still have a ``box_problem``.

    A stated box without a problem is used unchanged. Otherwise the box is that of the outline, else the stated one
    with its corners sorted, else the one around the labelled keypoints; each replacement of a stated box is noted.

    Args:
        stated: x, y, width, height; None if there is none.
        segmentation: outline, already checked.
        keypoints: [P, 3] x, y, visibility; None if there are none.
        size_hw: upright height and width of the image.
        where: name of the instance in notes.
    """
    box = None if stated is None else _as_box(stated)
    problem = "" if box is None else box_problem(box, size_hw)
    if box is not None and not problem:
        return box
    outline = None if segmentation is None else segmentation_box(segmentation)
    if outline is not None and not box_problem(outline, size_hw):
        if box is not None:
            notes.add(f"box of the outline used: the stated box {problem}", f"{where} {format_box(box)}")
        return outline
    if box is not None and isfinite(sum(box)) and min(box[2:]) < 0:
        notes.add(SORTED, f"{where} {format_box(box)}")
        box = sorted_box(box)
        problem = box_problem(box, size_hw)
        if not problem:
            return box
    points = np.zeros((0, 3)) if keypoints is None else np.asarray(keypoints, np.float64)
    if points.ndim == 2 and points.shape[1] == 3 and (points[:, 2] > 0).any():
        reason = "there is no other" if box is None else f"the stated box {problem}"
        notes.add(f"box around the keypoints used: {reason}", where)
        return _as_box(landmark_box(points, where, notes))
    return outline if box is None else box


def outline_box(segmentation: Outline, size_hw: tuple[int, int]) -> npt.NDArray[np.float64]:
    """float64 [4]: x, y, width, height of the box around an outline, within its image of ``size_hw``."""
    box = np.array(segmentation_box(segmentation), np.float64)
    return np.asarray(xyxy_to_xywh(clip_xyxy(xywh_to_xyxy(box), size_hw)), np.float64)


def box_problem(box: Box, size_hw: tuple[int, int]) -> str:
    """Why a box cannot be used, as the end of a sentence; "" if it is valid."""
    x, y, w, h = box
    height, width = size_hw
    if not isfinite(x + y + w + h):
        return "is not finite"
    if w < 0 or h < 0:
        return "has exchanged corners or a negative size"
    if w == 0:
        return "has no width"
    if h == 0:
        return "has no height"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "is outside the image"
    return ""


def sorted_box(box: Box) -> Box:
    """The box between the same corners, with a width and height of at least 0."""
    x, y, w, h = box
    return min(x, x + w), min(y, y + h), abs(w), abs(h)


def rotated_box(box: Box, degrees: float) -> Box:
    """x, y, width, height of the axis-aligned box around ``box`` rotated clockwise about its centre."""
    x, y, w, h = box
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    with np.errstate(over="ignore", invalid="ignore"):  # huge numbers become infinite and are rejected later
        center = np.array([2 * x + w, 2 * y + h]) / 2
        offsets = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) - center
        return _as_box(extent_xywh(center + offsets @ np.array([[cos, sin], [-sin, cos]])))


def cvat_rotation(attributes: Any) -> float:
    """Degrees clockwise, 0 to below 360, from the ``attributes`` that CVAT writes in COCO files; 0 for other values."""
    angle = attributes.get("rotation") if isinstance(attributes, dict) else None
    return angle % 360.0 if isinstance(angle, (int, float)) else 0.0


def extent_xywh(points: npt.ArrayLike) -> list[float]:
    """The box around points [V, 2] (or flat), as x, y, width, height."""
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    low, high = xy.min(axis=0), xy.max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # overflowing numbers become infinite and are rejected later
        return [*low.tolist(), *(high - low).tolist()]


def landmark_box(points: npt.NDArray[np.float64], where: str, notes: RepairLog) -> list[float]:
    """x, y, width, height around the labelled points of [P, 3] (at least one); widening to ``MIN_SIDE`` is noted."""
    x, y, width, height = extent_xywh(points[points[:, 2] > 0, :2])
    if min(width, height) < MIN_SIDE:
        notes.add(f"box around landmarks widened to {MIN_SIDE:g} px", where)
    wide, high = max(width, MIN_SIDE), max(height, MIN_SIDE)
    return [x - (wide - width) / 2, y - (high - height) / 2, wide, high]


def format_box(box: Sequence[float] | npt.NDArray[np.floating]) -> str:
    """A box in messages: ``[12, 8, 0, 30]``."""
    return f"[{', '.join(f'{number:.6g}' for number in box)}]"


def _as_box(numbers: Sequence[float] | npt.NDArray[np.floating]) -> Box:
    x, y, w, h = (float(number) for number in numbers)
    return x, y, w, h
