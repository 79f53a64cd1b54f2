"""Predict the frames of videos and cameras, one after the other: a line for each, and a video with what was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.inference.prediction_files import PredictionLines
from detseg.inference.prediction_run import WrittenCounts, write_results
from detseg.inference.predictor import Predictor
from detseg.inference.results import to_results
from detseg.media.video import Video
from detseg.media.video_files import frame_path, is_video
from detseg.media.video_writer import VideoWriter
from detseg.reports.draw import draw_prediction
from detseg.runtime.files import WriteError
from detseg.runtime.missing_path import missing_path
from detseg.runtime.reporter import Reporter

CAMERA_FRAMES = 1000
"""Frames of a camera, unless ``--frames`` states their number; Ctrl-C ends it earlier."""

OUTPUTS = ("coco", "jsonl", "csv", "images")
"""Of ``--outputs``, what there is for videos; "images" is the video with drawings."""

_CAMERA = re.compile(r"camera:(\d{1,3})")
_RANGE = re.compile(r"(\d{0,9}):(\d{0,9})")

Frame = tuple[int, float, npt.NDArray[np.uint8] | Exception]
"""Number, seconds from the first frame, and uint8 [H, W, 3] RGB, or why it cannot be read."""


@dataclass(frozen=True)
class Source:
    """Something with frames.

    Attributes:
        name: in results: the file name of a video, or ``camera-0``.
        path: of a video; None for a camera.
        camera: its number; -1 for a video.
    """

    name: str
    path: Path | None = None
    camera: int = -1


def video_sources(paths: Sequence[str]) -> list[Source]:
    """The videos and cameras among the inputs of ``predict``; empty if there are none.

    Raises:
        DataError: images and videos together, or two videos of one name.
        FileNotFoundError: there is no such video.
    """
    sources: list[Source] = []
    for path in paths:
        if match := _CAMERA.fullmatch(path):
            sources.append(Source(f"camera-{int(match[1])}", camera=int(match[1])))
        elif is_video(path) and not Path(path).is_dir():
            if not Path(path).is_file():
                raise missing_path(path)
            sources.append(Source(Path(path).name, Path(path)))
    if sources and len(sources) < len(paths):
        raise DataError("images and videos together; predict them in two runs, with different --output")
    if len({drawn_video(Path(), source.name) for source in sources}) < len(sources):
        raise DataError("two videos with the same name; predict them in two runs, with different --output")
    return sources


def check_sources(sources: Sequence[Source], outputs: Collection[str], processes: int, *, is_part: bool) -> None:
    """Check that options fit the inputs.

    Args:
        sources: of :func:`video_sources`.
        outputs: the values of ``--outputs``.
        processes: that predict.
        is_part: whether a range or a stride is stated.

    Raises:
        DataError: with the option.
    """
    if not sources and is_part:
        raise DataError("--frames and --stride are for videos and cameras; pass one, or omit them")
    others = sorted({*outputs} - {*OUTPUTS}) if sources else []
    if others:
        raise DataError(
            f"--outputs {others[0]} is for images, of videos there are {', '.join(OUTPUTS)}; extract the frames as "
            "images (detseg convert) and predict these"
        )
    if sources and processes > 1:
        raise DataError("videos and cameras are predicted by one process; start the command without torchrun")


def drawn_video(output: Path, name: str) -> Path:
    """The video with drawn predictions of a source, ``clip-predicted.mp4``."""
    return output / f"{name.removesuffix(Path(name).suffix)}-predicted.mp4"


def parse_frames(text: str | None) -> tuple[int, int | None]:
    """First frame and the one after the last of ``START:STOP``, each of which may be missing.

    Raises:
        DataError: anything else.
    """
    if text is None:
        return 0, None
    match = _RANGE.fullmatch(text)
    start, stop = (int(match[1] or 0), int(match[2]) if match[2] else None) if match else (0, 0)
    if match is None or (stop is not None and stop <= start):
        raise DataError(f"--frames {text}: write START:STOP, such as 100:200 (200 is not included), 100: or :200")
    return start, stop


def predict_frames(
    sources: Sequence[Source],
    predictor: Predictor,
    output: Path,
    *,
    frames: tuple[int, int | None],
    stride: int,
    batch_size: int,
    min_score: float,
    is_drawn: bool,
    reporter: Reporter,
) -> tuple[int, WrittenCounts]:
    """Predict the frames of each source in order and write a line for each into ``predictions.jsonl``.

    With ``is_drawn`` also ``<name>-predicted.mp4`` for each source, in which frames keep their times. Frames that
    cannot be read cost only themselves.

    Args:
        frames: the first, and the one after the last (None: to the end); see :func:`parse_frames`.
        stride: every n-th frame of these.
        batch_size: frames that the network gets together.

    Returns:
        The number of frames, and what was written for them.

    Raises:
        DataError: a video or camera that cannot be opened, or without frames in the range.
        OSError: the output cannot be written.
    """
    counts = WrittenCounts()
    with PredictionLines(output) as lines:
        for source in sources:
            stream, rate, total = _open(source, *frames, stride)
            with ExitStack() as stack:
                writer = None
                if is_drawn:
                    path = drawn_video(output, source.name)
                    if source.path is not None and path.exists() and path.samefile(source.path):
                        raise DataError(f"{path} would be replaced by its predictions; give another --output")
                    writer = stack.enter_context(VideoWriter(path, rate / stride))
                progress = reporter.progress(stream, f"predict {source.name}", total=total, unit="frame", leave=True)
                writing = _Writing(source.name, predictor, lines, writer, min_score, counts, reporter)
                bar = iter(progress)
                try:
                    while batch := list(islice(bar, batch_size)):
                        writing.write(batch)
                except KeyboardInterrupt:
                    if source.camera < 0:
                        raise
    counts.failures = lines.failures
    return lines.images, counts


@dataclass
class _Writing:
    """Where the results of one source go."""

    name: str
    predictor: Predictor
    lines: PredictionLines
    writer: VideoWriter | None
    min_score: float
    counts: WrittenCounts
    reporter: Reporter

    def write(self, batch: Sequence[Frame]) -> None:
        """Predict some frames, and write their lines and drawings."""
        good = [pixels for _, _, pixels in batch if not isinstance(pixels, Exception)]
        predictions = iter(self.predictor.many(good))
        for number, seconds, pixels in batch:
            name, image_id = frame_path(self.name, number), self.lines.images + 1
            place = {"frame": number, "seconds": round(seconds, 6)}
            if isinstance(pixels, Exception):
                self.lines.failure(image_id, name, str(pixels), place)
                continue
            prediction = next(predictions)
            results = to_results(prediction, self.predictor.class_map)
            size_hw = pixels.shape[0], pixels.shape[1]
            is_written = write_results(self.lines, self.counts, image_id, name, results, size_hw, self.min_score, place)
            if is_written and self.writer is not None and not self.counts.no_space:
                try:
                    self.writer.write(self._drawn(pixels, prediction), seconds)
                except WriteError as error:  # the predictions are worth more than the video
                    self.counts.no_space = f"{error.problem}; no more frames are drawn"
                    self.reporter.warning(f"warning: {self.counts.no_space}")

    def _drawn(self, pixels: npt.NDArray[np.uint8], prediction: Any) -> npt.NDArray[np.uint8]:
        predictor = self.predictor
        return draw_prediction(
            pixels,
            prediction,
            predictor.class_map,
            min_score=self.min_score,
            skeleton=predictor.keypoints.skeleton if predictor.keypoints else (),
            reporter=self.reporter,
        )


def _open(source: Source, start: int, stop: int | None, stride: int) -> tuple[Iterator[Frame], float, int]:
    """The frames of a source, its rate, and how many there are."""
    if source.path is None:
        stop = start + CAMERA_FRAMES * stride if stop is None else stop
        capture = cv2.VideoCapture(source.camera)
        if not capture.isOpened():
            raise DataError(f"camera:{source.camera} cannot be opened; check that it is connected and not in use")
        numbers = range(start, stop, stride)
        return _camera_frames(capture, source.camera, numbers), float(capture.get(cv2.CAP_PROP_FPS) or 0), len(numbers)
    video = Video(source.path)
    numbers = range(start, len(video) if stop is None else min(stop, len(video)), stride)
    if not len(numbers):
        raise DataError(
            f"{source.path}: no frame in --frames {start}:{'' if stop is None else stop}; the video has {len(video)} "
            f"(0..{len(video) - 1})"
        )
    return _video_frames(video, numbers), video.index.rate, len(numbers)


def _video_frames(video: Video, numbers: range) -> Iterator[Frame]:
    for number in numbers:
        try:
            yield number, video.seconds(number), video.frame(number)
        except (DataError, OSError, MemoryError) as error:
            yield number, video.seconds(number), error


def _camera_frames(capture: Any, camera: int, numbers: range) -> Iterator[Frame]:
    """Frames as they come; the first time is 0."""
    begin = None
    try:
        for number in range(numbers.stop):
            if number not in numbers:
                capture.grab()
                continue
            is_read, pixels = capture.read()
            if not is_read:
                break
            now = monotonic()
            begin = now if begin is None else begin
            yield number, now - begin, np.ascontiguousarray(pixels[..., ::-1])
        if begin is None:
            raise DataError(f"camera:{camera} gives no frames; check that it is connected and not in use")
    finally:
        capture.release()
