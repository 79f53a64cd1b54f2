"""Perceptual hashes of images: similar images have hashes that differ in few bits."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]

SIDE = 32
"""Side of a thumbnail in pixels."""

FREQUENCIES = 8
"""Lowest frequencies of the cosine transform in each direction that a hash compares."""

_MIRROR = np.where(np.arange(FREQUENCIES) % 2, -1, 1)  # a mirror image has the odd horizontal frequencies negated


def thumbnail(pixels: UInt8) -> UInt8:
    """uint8 [32, 32]: the grey levels of an image uint8 [H, W, 3] RGB, averaged over areas; all that a hash needs."""
    return np.asarray(cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def image_hash(pixels: UInt8) -> int:
    """The 64-bit perceptual hash (pHash) of an image uint8 [H, W, 3] RGB.

    Each bit states whether one of the 8 x 8 lowest frequencies of the discrete cosine transform of the thumbnail is
    above the median of the others; the mean brightness is left out, so that bit 63 is 0 (Zauner, "Implementation and
    benchmarking of perceptual image hash functions", 2010, section 3.2).
    """
    return int(hashes(thumbnail(pixels)[None])[0])


def mirrored_hash(pixels: UInt8) -> int:
    """:func:`image_hash` of the image flipped from left to right."""
    return int(mirrored_hashes(thumbnail(pixels)[None])[0])


def hashes(thumbnails: UInt8) -> Hashes:
    """uint64 [N]: the hashes of images by their thumbnails, uint8 [N, 32, 32]."""
    return _packed(_low_frequencies(thumbnails))


def mirrored_hashes(thumbnails: UInt8) -> Hashes:
    """:func:`hashes` of the images flipped from left to right."""
    return _packed(_low_frequencies(thumbnails) * _MIRROR)


def _low_frequencies(thumbnails: UInt8) -> npt.NDArray[np.float32]:
    """float32 [N, 8, 8]."""
    low = np.zeros((len(thumbnails), FREQUENCIES, FREQUENCIES), np.float32)
    for row, grey in enumerate(thumbnails):
        low[row] = cv2.dct(grey.astype(np.float32))[:FREQUENCIES, :FREQUENCIES]
    return low


def _packed(low: npt.NDArray[np.floating]) -> Hashes:
    values = low.reshape(len(low), FREQUENCIES**2)[:, 1:]
    bits = np.zeros((len(low), FREQUENCIES**2), np.uint64)
    bits[:, :-1] = values > np.median(values, axis=1, keepdims=True)
    return np.bitwise_or.reduce(bits << np.arange(FREQUENCIES**2, dtype=np.uint64), axis=1)
