"""What is known of a video before its frames are read, and the limits of videos."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

MAX_FRAMES = 5_000_000
"""Most frames that are indexed: 23 hours at 60 a second. A longer or an endless video must be cut."""

MAX_PIXELS = 100_000_000
"""Largest frame that is decoded, in pixels, as for image files."""

MAX_SIDE = 30_000
"""Longest side of a frame that is decoded, in pixels, as for image files."""


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """What is known of a video before its frames are read.

    Attributes:
        times: int64 [F], ascending: presentation time of each frame in units of ``time_base``; the frame number is the
            rank of its time. Only numbers 0..F-1 if the container stores no times.
        keys: int64 [K], ascending: presentation times of the packets at which decoding can start; empty if the frames
            can only be read in order.
        time_base: seconds per unit of ``times``.
        size_hw: height and width of the upright frames.
        orientation: EXIF orientation 1..8 of the stored frames, from the display matrix.
        rate: average frames per second; 0 if it is not known.
        container, codec: their names in FFmpeg.
        missing: frames that the container states, but does not have: it is truncated or damaged.
    """

    times: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    time_base: Fraction
    size_hw: tuple[int, int]
    orientation: int
    rate: float
    container: str
    codec: str
    missing: int = 0

    def __len__(self) -> int:
        return len(self.times)

    def seconds(self, number: int) -> float:
        """Time of a frame in seconds from the first frame."""
        if not len(self.keys) and self.time_base == 0:
            return number / self.rate if self.rate else 0.0
        return float((int(self.times[number]) - int(self.times[0])) * self.time_base)
