"""The segmentations of a COCO file, from their text to one column: they are nearly all that such a file holds."""

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
"""Segmentations that are read at a time: 300 kB of text, so that what is made of it stays in the cache."""


class CocoRle(msgspec.Struct, gc=False):
    """Run lengths, column by column: a list, or COCO's compressed string. ``size`` is height, width."""

    size: tuple[int, int]
    counts: list[int] | str


class _RleText(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: msgspec.Raw


Outline = list[list[float]] | CocoRle | None
"""``segmentation`` as a COCO file has it."""


@dataclass(frozen=True)
class Outlines:
    """N segmentations.

    Attributes:
        column: polygons of rings with x, y of three points or more, and listed run lengths that fill their size.
        others: all other ones that are not empty, by their number; None in ``column``.
        reach: float64 [N], the largest coordinate of each polygon without its sign; 0 for what is none.
    """

    column: SegmentationColumn
    others: dict[int, Outline]
    reach: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, index: int) -> Outline:
        """One as the file has it (run lengths are always a string)."""
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
    """Read N segmentations; an empty text is none.

    Raises:
        msgspec.ValidationError: one is neither a list of lists of numbers, nor run lengths, nor null.
    """
    points, reach = Growing(np.int32), Growing(np.float64)
    ring_lengths, ring_counts = Growing(np.int64), Growing(np.int64)
    rles: dict[int, RLE] = {}
    others: dict[int, Outline] = {}
    for first in range(0, len(texts), CHUNK):
        chunk = _read(texts[first : first + CHUNK])
        if points.dtype == np.int32 and chunk.points.dtype != np.int32:
            points = Growing(np.float64, pixels(points.array()))
        points.extend(chunk.points if points.dtype == np.int32 else pixels(chunk.points))
        ring_lengths.extend(chunk.lengths)
        ring_counts.extend(chunk.rings)
        reach.extend(chunk.reach)
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
    return Outlines(column, others, reach.array())


class Growing:
    """A flat array that grows at its end in place: parts that are kept until all are there would take their memory
    twice, and leave holes that are not given back."""

    def __init__(self, dtype: npt.DTypeLike, begin: npt.NDArray[Any] | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self._bytes = bytearray()
        if begin is not None:
            self.extend(begin)

    def extend(self, values: npt.NDArray[Any]) -> None:
        self._bytes += np.ascontiguousarray(values, self.dtype).reshape(-1).view(np.uint8).data

    def array(self) -> npt.NDArray[Any]:
        """All that was added; a view, so nothing can be added while it is there."""
        return np.frombuffer(self._bytes, self.dtype)


@dataclass(frozen=True)
class _Polygons:
    """As in :class:`Outlines`; ``lengths`` [R] counts the points of each ring, ``rings`` [N] the rings of each."""

    points: npt.NDArray[np.float64 | np.int32]
    lengths: npt.NDArray[np.int64]
    rings: npt.NDArray[np.int64]
    reach: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Chunk(_Polygons):
    rles: dict[int, RLE]
    others: dict[int, Outline]


def _read(texts: Sequence[msgspec.Raw]) -> _Chunk:
    """A few thousand at once."""
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
    rings, reach = np.zeros(len(texts), np.int64), np.zeros(len(texts))
    rings[rows], reach[rows] = polygons.rings, polygons.reach
    rle_rows = np.flatnonzero(is_rle).tolist()
    rles = {rle_rows[i]: rle for i, rle in _read_rles([texts[i] for i in rle_rows]).items()}
    other_rows = [*rows[bad].tolist(), *(i for i in rle_rows if i not in rles)]
    others = dict(zip(other_rows, _decode_others(b"[%b]" % b",".join([texts[i] for i in other_rows])), strict=True))
    return _Chunk(polygons.points, polygons.lengths, rings, reach, rles, others)


def _read_polygons(text: bytes) -> tuple[_Polygons, npt.NDArray[np.int64]]:
    """Lists of rings, each with a comma behind it; and which of them have a ring that is not x, y of three points.

    Those have no rings in the result.
    """
    found = read_rings(text)
    if found is not None:
        numbers: npt.NDArray[np.float64 | np.int32] = found.numbers
        lengths, rings = found.lengths, found.counts
    else:
        values = _decode_polygons(b"[%b]" % text[:-1])
        every = list(chain.from_iterable(values))
        numbers = np.fromiter(chain.from_iterable(every), np.float64)
        lengths = np.fromiter(map(len, every), np.int64, len(every))
        rings = np.fromiter(map(len, values), np.int64, len(values))
    owner = np.repeat(np.arange(len(rings)), rings)
    bad_ring = (lengths < 6) | (lengths % 2 == 1)
    bad = np.unique(owner[bad_ring])
    if len(bad):
        left_out = np.isin(owner, bad)
        numbers, lengths, owner = numbers[~np.repeat(left_out, lengths)], lengths[~left_out], owner[~left_out]
        rings[bad] = 0
    reach = np.zeros(len(rings))
    if len(lengths):
        largest = np.maximum.reduceat(np.abs(numbers), np.cumsum(lengths) - lengths)
        np.maximum.at(reach, owner, largest / 100 if numbers.dtype == np.int32 else largest)
    points = numbers.reshape(-1, 2)
    points = points if points.dtype == np.int32 else packed(points.astype(np.float64))
    return _Polygons(points, lengths // 2, rings, reach), bad


def _read_rles(texts: Sequence[msgspec.Raw]) -> dict[int, RLE]:
    """Those whose listed counts fill their size, by their number, compressed."""
    values = _decode_rles(b"[%b]" % b",".join(texts))
    sizes = [value.size for value in values]
    rows = [
        i
        for i, (height, width) in enumerate(sizes)
        if height > 0 and width > 0 and height * width <= MAX_PIXELS and bytes(memoryview(values[i].counts)[:1]) == b"["
    ]
    found = read_rings(b"[%b]," % b"],[".join([values[i].counts for i in rows]), whole=True) if rows else None
    if found is None:
        return {}
    stops = np.cumsum(found.lengths).tolist()
    totals = np.add.reduceat(found.numbers, [0, *stops[:-1]], dtype=np.int64).tolist()
    full: dict[int, Any] = {}
    for i, stop, length, total in zip(rows, stops, found.lengths.tolist(), totals, strict=True):
        if total == sizes[i][0] * sizes[i][1]:
            full[i] = {"size": list(sizes[i]), "counts": found.numbers[stop - length : stop]}
    compressed = coco_mask.frPyObjects(list(full.values()), 0, 0) if full else []  # each has its own size
    return dict(zip(full, compressed, strict=True))
