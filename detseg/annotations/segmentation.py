"""Store the segmentation column of a table: polygons or RLE of every instance, packed into flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.structures import RLE

Polygons = list[npt.NDArray[np.float64]]
"""The rings of one instance, each float64 [V, 2] x, y in upright absolute pixels; their union is the mask."""

Segmentation = Polygons | RLE | None
"""Outline of one instance: rings, or a compressed RLE of the whole upright image, or None."""

AnyArray = npt.NDArray[Any]


@dataclass(frozen=True)
class SegmentationColumn:
    """Segmentations of N instances in flat arrays, so that worker processes share them without copying.

    Attributes:
        points: [V, 2], all vertices of all rings: int32 in hundredths of a pixel if that is exact for all (COCO's own
            files have two decimals, and this halves the memory), else float64 in pixels.
        ring_start: int64 [R + 1], ring r is ``points[ring_start[r]:ring_start[r + 1]]``.
        rings: int64 [N + 1], instance i has the rings ``rings[i]`` to ``rings[i + 1]``.
        counts: uint8 [B], all compressed RLE counts, concatenated.
        counts_start: int64 [N + 1], instance i has the bytes ``counts_start[i]`` to ``counts_start[i + 1]``.
        rle_hw: int32 [N, 2], height and width of the RLE; zeros if there is none.
    """

    points: npt.NDArray[np.float64 | np.int32]
    ring_start: npt.NDArray[np.int64]
    rings: npt.NDArray[np.int64]
    counts: npt.NDArray[np.uint8]
    counts_start: npt.NDArray[np.int64]
    rle_hw: npt.NDArray[np.int32]

    @classmethod
    def from_list(cls, segmentations: Sequence[Segmentation]) -> SegmentationColumn:
        """Pack a list of segmentations. Polygons must be float [V, 2] rings, RLEs compressed (``counts`` as bytes)."""
        points: list[npt.NDArray[np.float64]] = []
        counts: list[bytes] = []
        rings = np.zeros(len(segmentations) + 1, np.int64)
        counts_length = np.zeros(len(segmentations) + 1, np.int64)
        rle_hw = np.zeros((len(segmentations), 2), np.int32)
        for i, segmentation in enumerate(segmentations):
            if isinstance(segmentation, dict):
                counts.append(segmentation["counts"])
                counts_length[i + 1] = len(counts[-1])
                rle_hw[i] = segmentation["size"]
            elif segmentation is not None:
                points.extend(segmentation)
                rings[i + 1] = len(segmentation)
        return cls(
            packed(np.concatenate([np.zeros((0, 2)), *points])),
            np.cumsum([0, *(len(ring) for ring in points)], dtype=np.int64),
            np.cumsum(rings),
            np.frombuffer(b"".join(counts), np.uint8),
            np.cumsum(counts_length),
            rle_hw,
        )

    @classmethod
    def concatenate(cls, columns: Sequence[SegmentationColumn]) -> SegmentationColumn:
        """Concatenate the instances of several columns, in order."""
        if len(columns) == 1:
            return columns[0]

        def joined(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
            return starts(np.concatenate([np.zeros(0, np.int64), *(np.diff(part) for part in parts)]))

        return cls(
            _joined([column.points for column in columns]),
            joined([column.ring_start for column in columns]),
            joined([column.rings for column in columns]),
            np.concatenate([np.zeros(0, np.uint8), *(column.counts for column in columns)]),
            joined([column.counts_start for column in columns]),
            np.concatenate([np.zeros((0, 2), np.int32), *(column.rle_hw for column in columns)]),
        )

    def take(self, rows: npt.NDArray[np.int64]) -> SegmentationColumn:
        """The instances in ``rows``, in that order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self
        runs = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of rows that follow each other
        first, last = rows[runs], rows[np.append(runs[1:], len(rows))[: len(runs)] - 1] + 1
        first_ring, last_ring = self.rings[first], self.rings[last]
        return SegmentationColumn(
            _slices(self.points, self.ring_start[first_ring], self.ring_start[last_ring]),
            starts(_slices(np.diff(self.ring_start), first_ring, last_ring)),
            starts(np.diff(self.rings)[rows]),
            _slices(self.counts, self.counts_start[first], self.counts_start[last]),
            starts(np.diff(self.counts_start)[rows]),
            self.rle_hw[rows],
        )

    def __len__(self) -> int:
        return len(self.rle_hw)

    def __getitem__(self, index: int) -> Segmentation:
        first, last = self.rings[index], self.rings[index + 1]
        if last > first:
            return [pixels(self.points[self.ring_start[r] : self.ring_start[r + 1]]) for r in range(first, last)]
        start, stop = self.counts_start[index], self.counts_start[index + 1]
        if stop > start:
            return {"size": [int(side) for side in self.rle_hw[index]], "counts": self.counts[start:stop].tobytes()}
        return None

    def present(self) -> npt.NDArray[np.bool_]:
        """bool [N]: which instances have a segmentation."""
        return (np.diff(self.rings) > 0) | (np.diff(self.counts_start) > 0)


def packed(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64 | np.int32]:
    """Pack float64 [V, 2] pixels: as int32 hundredths if that reproduces every number exactly, else unchanged."""
    with np.errstate(invalid="ignore", over="ignore"):
        hundredths = np.rint(points * 100)
        exact = (np.abs(hundredths) < 2**31) & (hundredths / 100 == points)
    return hundredths.astype(np.int32) if exact.all() else points


def _joined(parts: Sequence[npt.NDArray[np.float64 | np.int32]]) -> npt.NDArray[np.float64 | np.int32]:
    """Concatenate the points of several columns; float64 unless all are int32 hundredths."""
    if any(part.dtype != np.int32 for part in parts):
        parts = [pixels(part) for part in parts]
    return np.concatenate([np.zeros((0, 2), parts[0].dtype if parts else np.int32), *parts])


def pixels(points: npt.NDArray[np.float64 | np.int32]) -> npt.NDArray[np.float64]:
    """Unpack to float64 [V, 2] in pixels."""
    # a quotient is rounded once: 48556 / 100 is exactly the float64 that "485.56" is parsed as
    return np.asarray(points / 100 if points.dtype == np.int32 else points, np.float64)


def _slices(values: AnyArray, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> AnyArray:
    """Concatenate ``values[first[k]:last[k]]`` for all k."""
    return np.concatenate([values[:0], *(values[a:b] for a, b in zip(first.tolist(), last.tolist(), strict=True))])


def starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Start offset of each part, and the total length."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
