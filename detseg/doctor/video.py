"""Summarize a video file: size, rate, counted frames, and those that are damaged."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detseg.errors import DataError
from detseg.media.video import Video
from detseg.runtime.reporter import Reporter

SHOWN = 5
"""Damaged frames that are printed; all are in ``to_dict``."""


@dataclass(frozen=True)
class DamagedFrame:
    """A frame that cannot be decoded, and why."""

    number: int
    message: str


@dataclass(frozen=True)
class VideoSummary:
    """A video in numbers.

    Attributes:
        path: the file.
        width, height: of the upright frames, in pixels.
        frames: counted by decoding all.
        rate: frames a second, on average; 0 if it is not known.
        is_variable: whether the intervals between frames differ.
        seconds: from the first frame to the last.
        orientation: EXIF orientation 1..8 of the stored frames.
        codec, container: their names in FFmpeg.
        is_seekable: whether a frame can be read without decoding all before it.
        missing: frames that the container states, but does not have.
        errors: the damaged frames.
    """

    path: str
    width: int
    height: int
    frames: int
    rate: float
    is_variable: bool
    seconds: float
    orientation: int
    codec: str
    container: str
    is_seekable: bool
    missing: int
    errors: tuple[DamagedFrame, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON-serializable values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        rate = f"{self.rate:.6g} frames a second on average" if self.rate else "rate not known"
        lines = [
            f"video: {self.path}",
            f"size in pixels: width {self.width}, height {self.height}"
            + (", rotated by its metadata: frames are read upright" if self.orientation != 1 else ""),
            f"frames: {self.frames} (counted), {rate}{' (variable)' if self.is_variable else ''}, {self.seconds:.2f} "
            "seconds from the first frame to the last",
            f"format: {self.codec} in {self.container}",
        ]
        if not self.is_seekable:
            lines.append(
                "note: its frames can only be read in order, because the container stores no times: slow for "
                "training; put it into another container (ffmpeg -i OLD -c copy NEW.mkv)"
            )
        if self.missing:
            lines.append(
                f"warning: it has {self.missing} frames fewer than it states: it is truncated or damaged, and frame "
                "numbers may be shifted; copy it again"
            )
        lines += [f"error: {error.message}" for error in self.errors[:SHOWN]]
        lines += [f"and {len(self.errors) - SHOWN} more damaged frames"] * (len(self.errors) > SHOWN)
        return lines


def inspect_video(path: str | os.PathLike[str], *, reporter: Reporter) -> VideoSummary:
    """Decode all frames of a video once.

    Raises:
        DataError: it is not a video, or none of its frames can be decoded.
        OSError: it cannot be opened.
    """
    video = Video(path)
    errors: list[DamagedFrame] = []
    for number in reporter.progress(range(len(video)), "decoding frames", total=len(video), unit="frame"):
        try:
            video.frame(number)
        except DataError as error:
            errors.append(DamagedFrame(number, str(error)))
    index = video.index
    steps = np.diff(index.times)
    return VideoSummary(
        path=video.path,
        width=index.size_hw[1],
        height=index.size_hw[0],
        frames=len(video),
        rate=index.rate,
        is_variable=len(index.keys) > 0 and len(steps) > 1 and int(steps.max() - steps.min()) > 1,
        seconds=video.seconds(len(video) - 1),
        orientation=index.orientation,
        codec=index.codec,
        container=index.container,
        is_seekable=len(index.keys) > 0,
        missing=index.missing,
        errors=tuple(errors),
    )
