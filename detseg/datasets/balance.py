"""Sample images with rare classes more often: weights of images, and the order of an epoch that follows them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detseg.annotations.split import class_presence
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

Weights = npt.NDArray[np.float64]


def repeat_factors(table: AnnotationTable, threshold: float | None = None) -> Weights:
    """float64 [I]: how often each image is sampled, relative to one with common classes only (Gupta et al., "LVIS",
    CVPR 2019, appendix B).

    A class c that is in a share f of the images has the factor r(c) = max(1, sqrt(t / f)); an image has the largest
    factor of its classes, and 1 without any.

    Args:
        table: the training images.
        threshold: t, the share of the images below which a class is rare; LVIS has 0.001 for 100,000 images. None for
            the share of the most common class, so that every other one is sampled more often.
    """
    presence, share = _classes(table)
    threshold = float(share.max(initial=0)) if threshold is None else threshold
    factor = np.ones(len(share))
    factor[share > 0] = np.maximum(1, np.sqrt(threshold / share[share > 0]))
    return np.where(presence, factor, 1.0).max(axis=1, initial=1.0)


def class_balanced_weights(table: AnnotationTable) -> Weights:
    """float64 [I], of mean 1: how often each image is sampled if a class is drawn first, all with the same probability,
    and then one of its images (Shen et al., "Relay Backpropagation", ECCV 2016, class-aware sampling).

    Images without any class are sampled as often as without balancing.
    """
    presence, share = _classes(table)
    with_class = presence.any(axis=1)
    used = share > 0
    weights = np.ones(len(table))
    if used.any():
        per_image = (presence[:, used] / (share[used] * len(table))).sum(axis=1)
        weights[with_class] = per_image[with_class] / per_image[with_class].mean()
    return weights


def check_weights(weights: npt.ArrayLike, count: int) -> Weights:
    """``weights`` as float64 [count]; DataError unless they are finite, at least 0 and not all 0."""
    array = np.asarray(weights, np.float64)
    if array.shape != (count,):
        raise DataError(f"weights of shape {array.shape} for {count} samples; give one for each sample")
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise DataError("weights of samples must be finite numbers of at least 0, not all of them 0; correct them")
    return array


def weighted_order(weights: Weights, generator: np.random.Generator) -> list[int]:
    """As many rows as there are weights, in random order: each row as often as its share of the weights says, rounded
    up or down at random (systematic sampling), so that nothing is repeated or missed by bad luck."""
    count = len(weights)
    shuffled = generator.permutation(count)
    edges = np.cumsum(weights[shuffled] / weights.sum() * count)
    edges[edges > count - 1e-6] = count  # the sum of rounded numbers
    times = np.diff(np.floor(edges + generator.random()), prepend=0.0).astype(np.int64)
    rows = np.repeat(shuffled, times)
    return generator.permutation(rows).tolist()


def _classes(table: AnnotationTable) -> tuple[npt.NDArray[np.bool_], Weights]:
    """Which classes are in each image, bool [I, K], and the share of the images with each, float64 [K]."""
    presence = class_presence(table)[:, 1:]
    return presence, presence.sum(axis=0) / max(1, len(table))
