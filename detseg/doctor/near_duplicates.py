"""Find images that show the same view: copies, also altered or mirrored ones, and frames of one video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable, Record
from detseg.doctor.image_hash import SIDE, UInt8, hashes, mirrored_hashes, thumbnail
from detseg.doctor.same_view import SIDE as VIEW_SIDE
from detseg.doctor.same_view import View, mirrored, show_the_same, view_of
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.orientation import orient_image
from detseg.pixel_values import Range
from detseg.runtime.reporter import progress

MOST_BITS = 16
"""Bits of 63 in which the hashes of candidates may differ. Copies that are cropped by 3 % or rotated by 2 degrees have
up to 16, as have 0.1 % of all pairs of different images."""

MOST_BITS_IN_SEQUENCE = 24
"""The same for images whose names are neighbours in a numbered sequence, as frames of a video are."""

LEAST_SIMILARITY = 0.7
"""Correlation that the thumbnails of candidates must have at the best of the small shifts. Cropped copies are above it,
as are only 1 of 110 other pairs with similar hashes."""

MOST_COMPARED, MOST_ALIGNED = 100, 4
"""Thumbnails, and images, that one image is compared with in vain: the time is bounded if all images look alike."""

FLAT = 2.0
"""Standard deviation of grey levels below which an image is blank: all blank images look alike."""

CACHED_VIEWS = 256
THREADS = 4

_MARGIN = 4  # pixels of a thumbnail by which a cropped copy may be shifted

Thumbnails = UInt8


@dataclass(frozen=True)
class Pair:
    """Two images that show the same view.

    Attributes:
        first, second: their rows; first < second.
        bits: in which their hashes differ.
        is_mirrored: one is the mirror image of the other.
    """

    first: int
    second: int
    bits: int
    is_mirrored: bool


@dataclass(frozen=True)
class NearDuplicates:
    """Groups of images that are connected by pairs of the same view, as the frames of a video are: A~B~C.

    Attributes:
        group: int64 [N], the first row of the group of each image; of an image without any, its own row.
        pairs: one pair less than images in each group: not all that exist.
    """

    group: npt.NDArray[np.int64]
    pairs: list[Pair] = field(default_factory=list)

    def groups(self) -> list[npt.NDArray[np.int64]]:
        """The rows of each group of at least two images."""
        names, counts = np.unique(self.group, return_counts=True)
        return [np.flatnonzero(self.group == name) for name in names[counts > 1]]


def near_duplicates(
    table: AnnotationTable, thumbnails: Thumbnails | None = None, *, text: str = "comparing images"
) -> NearDuplicates:
    """Find the near-duplicates in a table; candidates are decoded again, at a small size.

    Frames of videos, images of a dataset object and images that cannot be decoded have none here.

    Args:
        thumbnails: of :func:`~detseg.doctor.image_hash.thumbnail` for each row, of the stored pixels (0: unknown); None
            to decode all images, JPEGs at reduced size.
        text: of the progress bar on a terminal.
    """
    if thumbnails is None:
        thumbnails = table_thumbnails(table, text=text)
    upright = [orient_image(grey, turn) for grey, turn in zip(thumbnails, table.orientation.tolist(), strict=True)]
    return near_duplicates_of(
        np.array(upright, np.uint8).reshape(-1, SIDE, SIDE),
        lambda row: _view(table[row]),
        previous_in_sequence(table.media.tolist()),
    )


def near_duplicates_of(
    thumbnails: Thumbnails, load: Callable[[int], View | None], previous: Mapping[int, int] | None = None
) -> NearDuplicates:
    """Find the near-duplicates among images by their thumbnails, and verify each by its views.

    Each image is compared with the earlier ones, the most similar hash first, but with none of a group that it is known
    to be in; so a video of N similar frames needs N comparisons of views.

    Args:
        thumbnails: uint8 [N, 32, 32] upright.
        load: row -> its view (upright), None if it cannot be decoded; called for candidates only.
        previous: row -> the row before it in a numbered sequence.
    """
    previous = previous or {}
    views = lru_cache(CACHED_VIEWS)(load)

    @lru_cache(CACHED_VIEWS)
    def flipped(row: int) -> View | None:
        view = views(row)
        return None if view is None else mirrored(view)

    plain, mirror = hashes(thumbnails), mirrored_hashes(thumbnails)
    known = thumbnails.std(axis=(1, 2)) >= FLAT
    group = np.arange(len(thumbnails))
    pairs: list[Pair] = []
    for row in np.flatnonzero(known).tolist():
        same = np.bitwise_count(plain[row] ^ plain[:row])
        other = np.bitwise_count(plain[row] ^ mirror[:row])
        bits = np.minimum(same, other)
        candidates = np.flatnonzero((bits <= MOST_BITS) & known[:row])
        candidates = candidates[np.argsort(bits[candidates], kind="stable")]
        before = previous.get(row, row)
        if before < row and known[before] and bits[before] <= MOST_BITS_IN_SEQUENCE:
            candidates = np.concatenate([[before], candidates[candidates != before]])
        compared = aligned = 0
        while len(candidates) and compared < MOST_COMPARED and aligned < MOST_ALIGNED:
            candidate, candidates = int(candidates[0]), candidates[1:]
            is_mirrored = bool(other[candidate] < same[candidate])
            if not _look_alike(thumbnails[candidate], thumbnails[row], is_mirrored):
                compared += 1
                continue
            first, second = views(candidate), flipped(row) if is_mirrored else views(row)
            if first is None or second is None or not show_the_same(first, second):
                aligned += 1
                continue
            pairs.append(Pair(candidate, row, int(bits[candidate]), is_mirrored))
            low, high = sorted((group[candidate], group[row]))
            group[group == high] = low
            candidates = candidates[group[candidates] != low]
    return NearDuplicates(group, pairs)


def table_thumbnails(table: AnnotationTable, *, text: str = "comparing images") -> Thumbnails:
    """uint8 [I, 32, 32]: of the stored pixels of each image file, several decoded at once; 0 if there is no such file,
    or it cannot be decoded, which decoding it for training reports."""

    def one(record: Record) -> UInt8:
        pixels = _pixels(record, 2 * SIDE)
        return np.zeros((SIDE, SIDE), np.uint8) if pixels is None else thumbnail(pixels)

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(progress(pool.map(one, table), text, total=len(table)))
    return np.array(results, np.uint8).reshape(-1, SIDE, SIDE)


def previous_in_sequence(names: list[str]) -> dict[int, int]:
    """Row -> the row whose name has the next smaller number in the same place: ``b/frame_9.jpg`` before
    ``b/frame_10.jpg``."""
    sequences: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for row, name in enumerate(names):
        stem, dot, suffix = name.rpartition(".")
        head = stem.rstrip("0123456789")
        digits = stem[len(head) :]
        if dot and 0 < len(digits) <= 18 and digits.isascii():
            sequences.setdefault((head, suffix), []).append((int(digits), row))
    return {
        later: earlier
        for rows in sequences.values()
        for (_, earlier), (_, later) in zip(sorted(rows), sorted(rows)[1:], strict=False)
    }


def _look_alike(first: UInt8, second: UInt8, is_mirrored: bool) -> bool:
    """Whether the middle of a thumbnail is similar to a part of the other one."""
    whole = np.ascontiguousarray(second[:, ::-1]) if is_mirrored else second
    middle = first[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return float(cv2.matchTemplate(whole, middle, cv2.TM_CCOEFF_NORMED).max()) >= LEAST_SIMILARITY


def _view(record: Record) -> View | None:
    pixels = _pixels(record, VIEW_SIDE)
    return None if pixels is None else view_of(orient_image(pixels, record.orientation))


def _pixels(record: Record, side: int) -> UInt8 | None:
    """uint8 [H, W, 3] as stored, possibly decoded at a reduced size with a longer side of at least ``side``."""
    if not record.path.name or record.member or record.frame >= 0:
        return None
    height, width = record.stored_hw
    factor = side / max(height, width, 1)
    min_hw = max(1, round(height * factor)), max(1, round(width * factor))
    try:
        encoded = EncodedImage(record.path)
        return encoded.decode(upright=False, min_hw=min_hw, value_range=_own_range(encoded))
    except (DataError, OSError):
        return None


def _own_range(encoded: EncodedImage) -> Range | None:
    """The lowest and highest value of an image with more than 8 bits per channel: many use a small part of them."""
    if not encoded.is_deep:
        return None
    values = encoded.values()
    low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else None
