"""What the keypoints of a data set are: names, mirror pairs, OKS falloffs, lines to draw."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.annotations.table import KeypointSchema

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


def keypoint_schema(names: Sequence[str], skeleton: Sequence[tuple[int, int]] = ()) -> KeypointSchema:
    """The schema of P named points.

    Pairs that change places in a mirror are found by name (``left_x`` and ``right_x``, ``x_left`` and ``x_right``, any
    case). The OKS falloffs are COCO's if the names are COCO's 17, else ``DEFAULT_SIGMA`` for every point: OKS AP is
    then comparable between models on this data set only.

    Args:
        names: P names.
        skeleton: index pairs (from 0) to draw lines between.
    """
    lower = [name.lower() for name in names]
    swaps = []
    for left, name in enumerate(lower):
        mirrored = name.replace("left", "right")
        if mirrored != name and mirrored in lower:
            swaps.append((left, lower.index(mirrored)))
    sigmas = COCO_SIGMAS if tuple(lower) == COCO_NAMES else (DEFAULT_SIGMA,) * len(names)
    return KeypointSchema(tuple(names), tuple(swaps), sigmas, tuple((int(a), int(b)) for a, b in skeleton))
