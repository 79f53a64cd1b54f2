"""Describe the keypoints of a data set: names, left-right pairs, OKS falloffs, skeleton."""

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
"""Falloff of points without a measured one: between COCO's eyes (0.025) and knees (0.087)."""


@dataclass(frozen=True)
class KeypointSchema:
    """The P keypoints of a data set.

    Attributes:
        names: P names.
        swaps: index pairs (left, right) that are swapped by a flip.
        sigmas: P OKS falloffs, COCO's ``k / 2``; pycocotools has only those of its 17 points.
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

    Pairs that are swapped by a flip are matched by name (``left_x`` and ``right_x``, ``x_left`` and ``x_right``, any
    case). Without ``sigmas``, 17 points use COCO's OKS falloffs, whatever their names, because pycocotools does the
    same; any other number uses ``DEFAULT_SIGMA`` for every point: OKS AP is then comparable between models on this data
    set only.

    Args:
        names: P names.
        skeleton: index pairs (from 0) to draw lines between.
        sigmas: P OKS falloffs; empty for the defaults.
    """
    lower = [name.lower() for name in names]
    swaps = []
    for left, name in enumerate(lower):
        partner = name.replace("left", "right")
        if partner != name and partner in lower:
            swaps.append((left, lower.index(partner)))
    defaults = COCO_SIGMAS if len(names) == len(COCO_SIGMAS) else (DEFAULT_SIGMA,) * len(names)
    lines = tuple((int(a), int(b)) for a, b in skeleton)
    return KeypointSchema(tuple(names), tuple(swaps), tuple(sigmas) or defaults, lines)


def unnamed(number: int) -> tuple[str, ...]:
    """Names of points that have none in their source: "point 1", "point 2", ..."""
    return tuple(f"point {i + 1}" for i in range(number))


def difference(schema: KeypointSchema | None, other: KeypointSchema | None) -> str:
    """Why the points of ``schema`` do not correspond to those of ``other``; "" if they do.

    Points without names match any points of the same number; case is ignored.
    """
    names, other_names = (() if value is None else value.names for value in (schema, other))
    if len(names) != len(other_names):
        return f"{len(names)} keypoints instead of {len(other_names)}"
    placeholders = unnamed(len(names))
    if placeholders in (names, other_names):
        return ""
    pairs = [(a, b) for a, b in zip(names, other_names, strict=True) if a.lower() != b.lower()]
    return f"keypoint {pairs[0][0]!r} in the position of {pairs[0][1]!r}" if pairs else ""
