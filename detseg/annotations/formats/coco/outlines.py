"""Parse the segmentations of a COCO file into one column; they are nearly all of the file's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from detseg.annotations.formats.coco.number_text import read_rings
from detseg.annotations.segmentation import SegmentationColumn, packed, pixels, starts
from detseg.masks import MAX_PIXELS
from detseg.structures import RLE

CHUNK = 1024
"""Segmentations per chunk: 300 kB of text, so that the arrays parsed from it stay in the CPU cache."""


class CocoRle(msgspec.Struct, gc=False):
    """Run lengths in column-major order: a list, or COCO's compressed string. ``size`` is height, width."""

    size: tuple[int, int]
    counts: list[int] | str


class _RleText(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: msgspec.Raw


Outline = list[list[float]] | CocoRle | None
"""``segmentation`` as written in a COCO file."""


@dataclass(frozen=True)
class Outlines:
    """N segmentations.

    Attributes:
        column: polygons whose rings have three points or more, and uncompressed run lengths that add up to their size.
        others: all other non-empty segmentations, by index; these are None in ``column``.
        max_coordinate: float64 [N], largest absolute coordinate of each polygon; 0 for other segmentations.
    """

    column: SegmentationColumn
    others: dict[int, Outline]
    max_coordinate: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> Outline:
        """One segmentation as in the file (run lengths are always a compressed string)."""
        if index in self.others:
            return self.others[index]
        value = self.column[index]
        if isinstance(value, dict):
            height, width = value["size"]
            return CocoRle((height, width), value["counts"].decode("ascii"))
        return None if value is None else [ring.ravel().tolist() for ring in value]


_decode_polygons = msgspec.json.Decoder(list[list[list[float]]]).decode
_decode_rles = msgspec.json.Decoder(list[_RleText]).decode
_decode_others = msgspec.json.Decoder(list[Outline]).decode


def read_outlines(texts: Sequence[msgspec.Raw]) -> Outlines:
    """Parse N segmentations; an empty text means no segmentation.

    Raises:
        msgspec.ValidationError: one is neither a list of lists of numbers, nor run lengths, nor null.
    """
    points, max_coordinate = GrowingArray(np.int32), GrowingArray(np.float64)
    ring_lengths, ring_counts = GrowingArray(np.int64), GrowingArray(np.int64)
    rles: dict[int, RLE] = {}
    others: dict[int, Outline] = {}
    for first in range(0, len(texts), CHUNK):
        chunk = _read_chunk(texts[first : first + CHUNK])
        if points.dtype == np.int32 and chunk.points.dtype != np.int32:
            points = GrowingArray(np.float64, pixels(points.array()))
        points.extend(chunk.points if points.dtype == np.int32 else pixels(chunk.points))
        ring_lengths.extend(chunk.lengths)
        ring_counts.extend(chunk.rings)
        max_coordinate.extend(chunk.max_coordinate)
        rles |= {first + i: rle for i, rle in chunk.rles.items()}
        others |= {first + i: other for i, other in chunk.others.items()}
    rows = np.fromiter(rles, np.int64, len(rles))
    rle_hw, count_lengths = np.zeros((len(texts), 2), np.int32), np.zeros(len(texts), np.int64)
    rle_hw[rows] = np.array([rle["size"] for rle in rles.values()], np.int32).reshape(-1, 2)
    count_lengths[rows] = [len(rle["counts"]) for rle in rles.values()]
    column = SegmentationColumn(
        points.array().reshape(-1, 2),
        starts(ring_lengths.array()),
        starts(ring_counts.array()),
        np.frombuffer(b"".join([rle["counts"] for rle in rles.values()]), np.uint8),
        starts(count_lengths),
        rle_hw,
    )
    return Outlines(column, others, max_coordinate.array())


class GrowingArray:
    """A flat array that is extended in place: collecting parts and joining them at the end would need their memory
    twice, and fragment it."""

    def __init__(self, dtype: npt.DTypeLike, initial: npt.NDArray[Any] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self._bytes = bytearray()
        if initial is not None:
            self.extend(initial)

    def extend(self, values: npt.NDArray[Any]) -> None:
        self._bytes += np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data

    def array(self) -> npt.NDArray[Any]:
        """All values added so far; a view, so nothing can be added while it exists."""
        return np.frombuffer(self._bytes, self.dtype)


@dataclass(frozen=True)
class _Polygons:
    """As in :class:`Outlines`; ``lengths`` [R] counts the points of each ring, ``rings`` [N] the rings per polygon."""

    points: npt.NDArray[np.float64 | np.int32]
    lengths: npt.NDArray[np.int64]
    rings: npt.NDArray[np.int64]
    max_coordinate: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Chunk(_Polygons):
    rles: dict[int, RLE]
    others: dict[int, Outline]


def _read_chunk(texts: Sequence[msgspec.Raw]) -> _Chunk:
    """Parse one chunk of segmentations."""
    text = b",".join([*texts, b""])
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    stop = np.cumsum(lengths + 1)
    first = np.frombuffer(text, np.uint8)[stop - lengths - 1]
    empty = (lengths == 0) | (first == ord("n")) | ((first == ord("[")) & (lengths == 2))
    is_rle = first == ord("{")
    rows, rest = np.flatnonzero(~(empty | is_rle)), np.flatnonzero(empty | is_rle)
    if len(rest):
        begins, ends = [0, *stop[rest].tolist()], [*(stop - lengths - 1)[rest].tolist(), len(text)]
        text = b"".join([text[begin:end] for begin, end in zip(begins, ends, strict=True)])
    polygons, bad = _read_polygons(text)
    rings, max_coordinate = np.zeros(len(texts), np.int64), np.zeros(len(texts))
    rings[rows], max_coordinate[rows] = polygons.rings, polygons.max_coordinate
    rle_rows = np.flatnonzero(is_rle).tolist()
    rles = {rle_rows[i]: rle for i, rle in _read_rles([texts[i] for i in rle_rows]).items()}
    other_rows = [*rows[bad].tolist(), *(i for i in rle_rows if i not in rles)]
    others = dict(zip(other_rows, _decode_others(b"[%b]" % b",".join([texts[i] for i in other_rows])), strict=True))
    return _Chunk(polygons.points, polygons.lengths, rings, max_coordinate, rles, others)


def _read_polygons(text: bytes) -> tuple[_Polygons, npt.NDArray[np.int64]]:
    """Parse lists of rings, each followed by a comma; also return the indices of polygons with an invalid ring: fewer
    than three points, or an odd number of coordinates.

    These have no rings in the result.
    """
    parsed = read_rings(text)
    if parsed is not None:
        numbers: npt.NDArray[np.float64 | np.int32] = parsed.numbers
        lengths, rings = parsed.lengths, parsed.counts
    else:
        values = _decode_polygons(b"[%b]" % text[:-1])
        all_rings = list(chain.from_iterable(values))
        numbers = np.fromiter(chain.from_iterable(all_rings), np.float64)
        lengths = np.fromiter(map(len, all_rings), np.int64, len(all_rings))
        rings = np.fromiter(map(len, values), np.int64, len(values))
    owner = np.repeat(np.arange(len(rings)), rings)
    bad_ring = (lengths < 6) | (lengths % 2 == 1)
    bad = np.unique(owner[bad_ring])
    if len(bad):
        left_out = np.isin(owner, bad)
        numbers, lengths, owner = numbers[~np.repeat(left_out, lengths)], lengths[~left_out], owner[~left_out]
        rings[bad] = 0
    max_coordinate = np.zeros(len(rings))
    if len(lengths):
        largest = np.maximum.reduceat(np.abs(numbers), np.cumsum(lengths) - lengths)
        np.maximum.at(max_coordinate, owner, largest / 100 if numbers.dtype == np.int32 else largest)
    points = numbers.reshape(-1, 2)
    points = points if points.dtype == np.int32 else packed(points.astype(np.float64))
    return _Polygons(points, lengths // 2, rings, max_coordinate), bad


def _read_rles(texts: Sequence[msgspec.Raw]) -> dict[int, RLE]:
    """Uncompressed run lengths that add up to their size, by index, compressed."""
    values = _decode_rles(b"[%b]" % b",".join(texts))
    sizes = [value.size for value in values]
    rows = [
        i
        for i, (height, width) in enumerate(sizes)
        if height > 0 and width > 0 and height * width <= MAX_PIXELS and bytes(memoryview(values[i].counts)[:1]) == b"["
    ]
    parsed = read_rings(b"[%b]," % b"],[".join([values[i].counts for i in rows]), whole=True) if rows else None
    if parsed is None:
        return {}
    stops = np.cumsum(parsed.lengths).tolist()
    totals = np.add.reduceat(parsed.numbers, [0, *stops[:-1]], dtype=np.int64).tolist()
    valid: dict[int, Any] = {}
    for i, stop, length, total in zip(rows, stops, parsed.lengths.tolist(), totals, strict=True):
        if total == sizes[i][0] * sizes[i][1]:
            valid[i] = {"size": list(sizes[i]), "counts": parsed.numbers[stop - length : stop]}
    compressed = coco_mask.frPyObjects(list(valid.values()), 0, 0) if valid else []  # sizes are in the values
    return dict(zip(valid, compressed, strict=True))
