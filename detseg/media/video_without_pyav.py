"""Read videos with OpenCV where PyAV is not installed: always in order, because OpenCV's seeking is not exact."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.media.frame_times import MAX_FRAMES, MAX_PIXELS, MAX_SIDE, VideoIndex
from detseg.media.video_files import REPLACE_VIDEO, demuxer_of, frame_path

INSTALL = "pip install 'detseg[video]' reads frames directly (PyAV)"


def open_capture(path: str) -> cv2.VideoCapture:
    """OpenCV's reader of a video file.

    Raises:
        DataError: not a video that OpenCV can read, or too large frames.
        OSError: the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        demuxer_of(file, path)
    capture = cv2.VideoCapture(str(Path(path).resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise DataError(f"{path}: OpenCV cannot read this video; {INSTALL}, or {REPLACE_VIDEO}")
    width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        capture.release()
        raise DataError(f"{path}: the frames are {width} x {height} pixels, which is too large; {REPLACE_VIDEO}")
    return capture


def index_in_order(path: str) -> VideoIndex:
    """Count the frames by decoding all; times are frame numbers, which is right for constant rates."""
    capture = open_capture(path)
    read, pixels = capture.read()
    count = 0
    while read and count <= MAX_FRAMES:
        count += 1
        read = capture.grab()
    rate = float(capture.get(cv2.CAP_PROP_FPS) or 0)
    capture.release()
    if not count or count > MAX_FRAMES:
        raise DataError(f"{path}: {'no frame' if not count else f'more than {MAX_FRAMES} frames'}; {REPLACE_VIDEO}")
    height, width = pixels.shape[:2]
    return VideoIndex(np.arange(count), np.zeros(0, np.int64), Fraction(0), (height, width), 1, rate, "video", "OpenCV")


class InOrder:
    """The decoder of :mod:`detseg.media.video` by OpenCV, which starts again for an earlier frame."""

    def __init__(self, path: str, index: VideoIndex) -> None:
        self._path, self._index = path, index
        self._capture, self._next = open_capture(path), 0

    def close(self) -> None:
        self._capture.release()

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        if number < self._next:
            self.close()
            self._capture, self._next = open_capture(self._path), 0
        while self._next < number and self._capture.grab():
            self._next += 1
        read, pixels = self._capture.read()
        self._next += 1
        if not read or pixels.shape[:2] != self._index.size_hw:
            raise DataError(f"{frame_path(self._path, number)}: this frame is damaged or missing; {REPLACE_VIDEO}")
        return np.ascontiguousarray(pixels[..., ::-1])
