"""Draw keypoints on an image: a dot for each point, lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.reports.palette import colour_of

UInt8 = npt.NDArray[np.uint8]

_WHITE = (255, 255, 255)
_FAR = 2**15
_MIN_SCORE = 0.5  # predicted points with at least this score are drawn as visible


def draw_keypoints(
    out: UInt8,
    points: npt.NDArray[Any],
    colour: tuple[int, int, int],
    line: int,
    *,
    skeleton: Sequence[tuple[int, int]] = (),
    ground_truth: bool,
) -> None:
    """Draw the points of one instance onto ``out``, uint8 [H, W, 3].

    The colour of a point depends on its index, so that left and right can be distinguished. A hidden point (visibility
    1), or a predicted point with a score below 0.5, is a ring; unlabelled points and their lines are not drawn.

    Args:
        points: float [P, 3] x, y and visibility (``ground_truth``) or score, in pixels of ``out``.
        colour: of the lines.
        line: width of the lines in pixels.
        skeleton: index pairs to draw lines between.
    """
    shown = points[:, 2] > 0 if ground_truth else np.ones(len(points), np.bool_)
    filled = points[:, 2] > 1 if ground_truth else points[:, 2] >= _MIN_SCORE
    near = np.clip(points[:, :2], -_FAR, _FAR)  # OpenCV counts in 32 bits, and draws a line pixel by pixel
    centres = [(round(float(x)), round(float(y))) for x, y in near]
    for a, b in skeleton:
        if shown[a] and shown[b]:
            cv2.line(out, centres[a], centres[b], colour, line, cv2.LINE_AA)
    for index in np.flatnonzero(shown).tolist():
        point_colour = colour_of(index + 1)
        cv2.circle(out, centres[index], 2 * line + 1, _WHITE if filled[index] else point_colour, -1, cv2.LINE_AA)
        cv2.circle(out, centres[index], 2 * line, point_colour if filled[index] else _WHITE, -1, cv2.LINE_AA)
