"""Check the keypoints of one instance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.repair_log import RepairLog
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema


def check_keypoints(
    keypoints: npt.NDArray[np.floating] | None,
    schema: KeypointSchema,
    size_hw: tuple[int, int],
    where: str,
    notes: RepairLog,
) -> npt.NDArray[np.float64]:
    """Check the keypoints of one instance: float64 [P, 3] x, y, visibility in upright pixels; zeros for None.

    Args:
        size_hw: upright height and width of the image.
        where: name of the instance in messages.
        notes: log to which keypoints outside the image are added.

    Raises:
        DataError: a wrong number of points, numbers that are not finite, an unknown visibility.
    """
    shape = (len(schema.names), 3)
    if keypoints is None:
        return np.zeros(shape)
    points = np.asarray(keypoints, np.float64)
    if points.shape != shape or not np.isfinite(points).all():
        raise DataError(f"{where}: keypoints {points.tolist()} are not {shape[0]} points of finite x, y, visibility")
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise DataError(
            f"{where}: keypoint visibility {points[:, 2].tolist()}; allowed are 0 (not labelled), 1 (hidden) and 2 "
            "(visible)"
        )
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= size_hw[::-1])).all(axis=1)
    for index in np.flatnonzero(~inside & (points[:, 2] > 0)).tolist():
        keypoint = f"{schema.names[index]} {points[index, :2].tolist()}"
        notes.add("keypoint outside the image not used in training", f"{where} {keypoint}")
    return points
