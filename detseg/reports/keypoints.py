"""Keypoints on an image: a dot for each point, lines between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.reports.palette import colour_of

UInt8 = npt.NDArray[np.uint8]

_WHITE = (255, 255, 255)
_SURE = 0.5  # score from which a predicted point is drawn like a visible one


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

    A point has the colour of its number, so that left and right can be told apart. A hidden one (visibility 1), or a
    predicted one that scores less than 0.5, is a ring; one that is not labelled is left out, with its lines.

    Args:
        points: float [P, 3] x, y and visibility (``ground truth``) or score, in pixels of ``out``.
        colour: of the lines.
        line: their width in pixels.
        skeleton: index pairs to draw lines between.
    """
    shown = points[:, 2] > 0 if ground_truth else np.ones(len(points), np.bool_)
    sure = points[:, 2] > 1 if ground_truth else points[:, 2] >= _SURE
    centres = [(round(float(x)), round(float(y))) for x, y in points[:, :2]]
    for a, b in skeleton:
        if shown[a] and shown[b]:
            cv2.line(out, centres[a], centres[b], colour, line, cv2.LINE_AA)
    for index in np.flatnonzero(shown).tolist():
        own = colour_of(index + 1)
        cv2.circle(out, centres[index], 2 * line + 1, _WHITE if sure[index] else own, -1, cv2.LINE_AA)
        cv2.circle(out, centres[index], 2 * line, own if sure[index] else _WHITE, -1, cv2.LINE_AA)
