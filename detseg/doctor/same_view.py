"""Decide whether two images show the same view: align them by local features, then compare the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]

SIDE = 256
"""Longer side in pixels of the images that are compared."""

FEATURES = 500
"""Most local features of an image."""

TOLERANCE = 2.0
"""Pixels by which features of aligned images may be apart."""

LEAST_INLIERS = 20
"""Features that must agree on one shift, rotation and scale. Different images of one set have at most 7 (measured on
720 pairs with similar hashes), copies with a crop or a rotation at least 33, unless they show next to nothing."""

LEAST_CORRELATION = 0.9
"""Correlation of the aligned pixels. Frames of a video with moving objects, or a field refocused, are above it."""

LEAST_OVERLAP = 0.5
"""Share of each image that the other one must show."""

FEW_FEATURES = 100
"""Features below which an image is too smooth for them: it is aligned by its pixels, and must be more similar."""

LEAST_SMOOTH_CORRELATION = 0.97
"""Correlation of the pixels of smooth images, and of images that need no alignment."""


@dataclass(frozen=True)
class View:
    """A small grey image, uint8 [h, w], and its features: points float32 [F, 2], descriptors uint8 [F, 32]."""

    grey: UInt8
    points: npt.NDArray[np.float32]
    descriptors: UInt8


def view_of(pixels: UInt8) -> View:
    """The view of an image, uint8 [H, W, 3] RGB."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    factor = SIDE / max(grey.shape)
    size = [max(1, round(side * factor)) for side in grey.shape[::-1]]
    return _with_features(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA)))


def mirrored(view: View) -> View:
    """The view flipped from left to right; its descriptors are computed again, as they know left from right."""
    return _with_features(np.ascontiguousarray(view.grey[:, ::-1]))


def show_the_same(first: View, second: View) -> bool:
    """Whether both are one image, also if one was recompressed, scaled, brightened, cropped or rotated a little; frames
    of a video that overlap, too."""
    start = _same_frame(first.grey, second.grey)
    if _correlation(first.grey, second.grey, start) >= LEAST_SMOOTH_CORRELATION:
        return True
    matrix, inliers = _feature_alignment(first, second)
    if inliers >= LEAST_INLIERS:
        return _correlation(first.grey, second.grey, matrix) >= LEAST_CORRELATION
    if min(len(first.points), len(second.points)) >= FEW_FEATURES:
        return False
    a, b = _halved(first.grey), _halved(second.grey)
    return _correlation(a, b, _pixel_alignment(a, b)) >= LEAST_SMOOTH_CORRELATION


def _same_frame(first: UInt8, second: UInt8) -> npt.NDArray[np.float64]:
    """The transform [2, 3] from ``second`` to ``first`` that scales the one frame to the other."""
    return np.diag([first.shape[1] / second.shape[1], first.shape[0] / second.shape[0], 1.0])[:2]


def _halved(grey: UInt8) -> UInt8:
    size = [max(1, side // 2) for side in grey.shape[::-1]]
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA))


def _with_features(grey: UInt8) -> View:
    keypoints: Sequence[cv2.KeyPoint]
    keypoints, descriptors = cv2.ORB_create(FEATURES, fastThreshold=7).detectAndCompute(grey, None)  # type: ignore[attr-defined]
    if descriptors is None:
        return View(grey, np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    return View(grey, np.array([point.pt for point in keypoints], np.float32), descriptors)


def _feature_alignment(first: View, second: View) -> tuple[npt.NDArray[np.float64], int]:
    """The similarity transform [2, 3] from ``second`` to ``first``, and the number of features that agree on it."""
    nothing = np.eye(2, 3), 0
    if min(len(first.points), len(second.points)) < LEAST_INLIERS:
        return nothing
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(second.descriptors, first.descriptors)
    if len(matches) < LEAST_INLIERS:
        return nothing
    source = second.points[[match.queryIdx for match in matches]]
    target = first.points[[match.trainIdx for match in matches]]
    cv2.setRNGSeed(0)  # RANSAC: the same result in each call
    matrix, inliers = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=TOLERANCE, maxIters=1000)
    return nothing if matrix is None else (matrix, int(inliers.sum()))


def _pixel_alignment(first: UInt8, second: UInt8) -> npt.NDArray[np.float64]:
    """The affine transform [2, 3] from ``second`` to ``first`` that makes their pixels most alike (ECC, Evangelidis and
    Psarakis 2008), from a start where both have the same frame."""
    start = cv2.invertAffineTransform(_same_frame(first, second)).astype(np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-4)
    try:
        _, inverse = cv2.findTransformECC(first, second, start, cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # it did not converge
        inverse = start
    return np.asarray(cv2.invertAffineTransform(inverse), np.float64)


def _correlation(first: UInt8, second: UInt8, matrix: npt.NDArray[np.float64]) -> float:
    """Correlation of ``first`` with ``second`` moved by ``matrix``, where both have pixels; 0 if that is a small part
    of one of them, or if there is no contrast."""
    size = first.shape[1], first.shape[0]
    moved = cv2.warpAffine(second, matrix, size)
    covered = cv2.warpAffine(np.full(second.shape, 255, np.uint8), matrix, size)
    inside = cv2.erode(np.asarray(covered == 255, np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    scale = abs(float(np.linalg.det(matrix[:, :2])))
    if inside.sum() < LEAST_OVERLAP * max(first.size, second.size * scale):
        return 0.0
    a, b = first[inside].astype(np.float64), moved[inside].astype(np.float64)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else 0.0
