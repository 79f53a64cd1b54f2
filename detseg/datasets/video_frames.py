"""Decode the frames of videos in order before an epoch reads them at random, where that is less work."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from time import monotonic

import numpy as np

from detseg.annotations.table import AnnotationTable
from detseg.datasets.dataset import Dataset
from detseg.media.video_files import is_frame_in_video, split_frame
from detseg.media.video_index import video_index
from detseg.runtime.reporter import Reporter
from detseg.short_text import counted, duration

GAIN = 2.0
"""Frames are decoded in order first if random order would decode this many times as many."""


@dataclass(frozen=True)
class DecodingCost:
    """Frames of videos that a table has, and how many must be decoded to read each once.

    Attributes:
        rows: of the table, by video and number.
        at_random: frames that are decoded in random order: those from the last packet at which decoding can start.
        in_order: frames that are decoded in the order of ``rows``.
    """

    rows: list[int]
    at_random: int
    in_order: int


def decoding_cost(table: AnnotationTable) -> DecodingCost:
    """The cost of the frames of a table, from the indices of their videos; other images are left out."""
    numbers: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in np.flatnonzero(table.frame >= 0).tolist():
        path = table.root / str(table.media[row])
        parts = split_frame(path)
        if parts is not None and is_frame_in_video(path):
            numbers[parts[0]].append((parts[1], row))
    rows: list[int] = []
    at_random = in_order = 0
    for video, frames in sorted(numbers.items()):
        index = video_index(video)
        starts = np.searchsorted(index.times, index.keys) if len(index.keys) else np.zeros(1, np.int64)
        following = 0
        for number, row in sorted(frames):
            rows.append(row)
            start = int(starts[np.searchsorted(starts, number, side="right") - 1])
            at_random += number - start + 1
            in_order += number + 1 - max(start, following)
            following = number + 1
    return DecodingCost(rows, at_random, in_order)


def decode_in_order(dataset: Dataset, epochs: int, reporter: Reporter) -> None:
    """Fill the dataset's cache of decoded images with its frames of videos, in order, if that is less work, and say so.

    The cached pixels are those that the epochs would decode, so results do not change. Frames that do not fit into the
    cache are decoded in each epoch, which is said, too.

    Args:
        dataset: with a cache, ``decoded``, or without.
        epochs: of the run.
        reporter: for the lines and the progress.

    Raises:
        DataError: a frame is damaged.
    """
    cost = decoding_cost(dataset.table)
    if not cost.rows:
        return
    room = 0 if dataset.decoded is None else dataset.decoded.rows
    rows = [row for row in cost.rows if row < room]
    share = len(rows) / len(cost.rows)
    if cost.at_random < GAIN * cost.in_order:
        rows = []
    if rows:
        start = monotonic()
        for row in reporter.progress(rows, "decoding frames", total=len(rows), unit="frame"):
            dataset.decode(row)
        reporter.line(
            f"{counted(len(rows), 'frame')} of videos decoded once, in order: {round(cost.in_order * share)} decoded, "
            f"in random order {round(cost.at_random * share)} ({duration(monotonic() - start)})"
        )
    if share < 1 and epochs > 1:
        left = round(cost.at_random * (1 - share))
        reporter.line(
            f"{counted(len(cost.rows) - round(share * len(cost.rows)), 'frame')} of videos are not cached: each of "
            f"{epochs} epochs decodes {left} frames for them (--decoded-limit GB caches more; detseg convert extracts "
            "them)"
        )
