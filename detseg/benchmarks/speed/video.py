"""Compare the speed of reading frames of a video: by number, by OpenCV, and from frames extracted as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.media.video import Video
from detseg.media.video_writer import VideoWriter
from detseg.reports.sheet import write_image

FRAMES, SIZE_HW, RATE = 48, (360, 480), 25
AT_RANDOM = 12
"""Frames that are read in random order; each turn the same."""

TURNS = 3


def compare(device: torch.device) -> list[Comparison]:
    """Compare reading on one core of the CPU, independent of ``device``.

    Raises:
        DataError: PyAV is not installed, or frames differ from those that were extracted.
    """
    with one_core(), TemporaryDirectory() as name:
        folder = Path(name)
        path = _moving_texture(folder / "texture.mp4")
        video = Video(path)
        png = [folder / f"{number}.png" for number in range(len(video))]
        for number, image in video.frames():
            write_image(png[number], image)
        at_random = np.random.default_rng(0).permutation(len(video))[:AT_RANDOM].tolist()
        everything = list(range(len(video)))
        if not all(np.array_equal(video.frame(number), decode_image(png[number])) for number in at_random):
            raise DataError("frames of the video differ from the extracted ones")
        size = f"{SIZE_HW[0]} x {SIZE_HW[1]}, H.264"
        return [
            time_interleaved(
                f"{FRAMES} frames of {size} in order", lambda: _read(video, everything),
                lambda: _read_opencv(path, everything), baseline="cv2.VideoCapture", turns=TURNS,
            ),
            time_interleaved(
                f"{AT_RANDOM} of these in random order", lambda: _read(video, at_random),
                lambda: _seek_opencv(path, at_random), baseline="cv2.VideoCapture, CAP_PROP_POS_FRAMES",
                turns=TURNS,
            ),
            time_interleaved(
                "in order, compared with extracted PNG files", lambda: _read(video, everything),
                lambda: _read_images(png, everything), baseline="decode_image of a PNG for each frame", turns=TURNS,
            ),
            time_interleaved(
                "in random order, compared with extracted PNG files", lambda: _read(video, at_random),
                lambda: _read_images(png, at_random), baseline="decode_image of a PNG for each frame", turns=TURNS,
            ),
            time_interleaved(
                "in order, compared with extracting them", lambda: _read(video, everything),
                lambda: _extract(video, folder / "again.png"), baseline="decode, and write PNG files", turns=TURNS,
            ),
        ]  # fmt: skip


def _moving_texture(path: Path) -> Path:
    """A video of a texture that moves, with noise, about as hard to compress as a recording."""
    rng = np.random.default_rng(0)
    height, width = SIZE_HW
    texture = cv2.GaussianBlur(rng.integers(0, 256, (2 * height, 2 * width, 3)).astype(np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    with VideoWriter(path, RATE) as writer:
        for number in range(FRAMES):
            y, x = number % height, (2 * number) % width
            noise = rng.integers(0, 6, (height, width, 3)).astype(np.uint8)
            writer.write(cv2.add(texture[y : y + height, x : x + width], noise), number / RATE)
    return path


def _read(video: Video, numbers: Sequence[int]) -> None:
    for number in numbers:
        video.frame(number)


def _read_images(paths: Sequence[Path], numbers: Sequence[int]) -> None:
    for number in numbers:
        decode_image(paths[number])


def _extract(video: Video, path: Path) -> None:
    for _, image in video.frames():
        write_image(path, image)


def _read_opencv(path: Path, numbers: Sequence[int]) -> None:
    capture = cv2.VideoCapture(str(path))
    for _ in numbers:
        cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)


def _seek_opencv(path: Path, numbers: Sequence[int]) -> None:
    capture = cv2.VideoCapture(str(path))
    for number in numbers:
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
