"""What the keypoints of a data set are: names, mirror pairs, OKS falloffs, lines to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip
"""OKS falloffs of COCO's 17 points (``Params.kpt_oks_sigmas`` of pycocotools)."""

DEFAULT_SIGMA = 0.05
"""Falloff of points that nobody measured: between COCO's eyes (0.025) and knees (0.087)."""


@dataclass(frozen=True)
class KeypointSchema:
    """The P keypoints of a data set.

    Attributes:
        names: P names.
        swaps: index pairs (left, right) that change places in a mirror.
        sigmas: P OKS falloffs, COCO's ``k / 2``; pycocotools knows only those of its 17 points.
        skeleton: index pairs to draw lines between.
    """

    names: tuple[str, ...]
    swaps: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


def keypoint_schema(
    names: Sequence[str], skeleton: Sequence[tuple[int, int]] = (), sigmas: Sequence[float] = ()
) -> KeypointSchema:
    """The schema of P named points.

    Pairs that change places in a mirror are found by name (``left_x`` and ``right_x``, ``x_left`` and ``x_right``, any
    case). The OKS falloffs of 17 points are COCO's, whatever their names, because pycocotools takes them so; of any
    other number ``DEFAULT_SIGMA`` for every point unless they are given: OKS AP is then comparable between models on
    this data set only.

    Args:
        names: P names.
        skeleton: index pairs (from 0) to draw lines between.
        sigmas: P OKS falloffs; empty for the usual ones.
    """
    lower = [name.lower() for name in names]
    swaps = []
    for left, name in enumerate(lower):
        mirrored = name.replace("left", "right")
        if mirrored != name and mirrored in lower:
            swaps.append((left, lower.index(mirrored)))
    usual = COCO_SIGMAS if len(names) == len(COCO_SIGMAS) else (DEFAULT_SIGMA,) * len(names)
    lines = tuple((int(a), int(b)) for a, b in skeleton)
    return KeypointSchema(tuple(names), tuple(swaps), tuple(sigmas) or usual, lines)


def unnamed(number: int) -> tuple[str, ...]:
    """What points are called whose source gives them no names: "point 1", "point 2", ..."""
    return tuple(f"point {i + 1}" for i in range(number))


def difference(schema: KeypointSchema | None, other: KeypointSchema | None) -> str:
    """Why points of ``schema`` cannot be compared with those of ``other``, one by one; "" if they can.

    Points without names fit any of the same number; upper and lower case are one.
    """
    names, others = (() if one is None else one.names for one in (schema, other))
    if len(names) != len(others):
        return f"{len(names)} keypoints against {len(others)}"
    free = unnamed(len(names))
    if free in (names, others):
        return ""
    pairs = [(a, b) for a, b in zip(names, others, strict=True) if a.lower() != b.lower()]
    return f"keypoint {pairs[0][0]!r} stands where {pairs[0][1]!r} is" if pairs else ""
