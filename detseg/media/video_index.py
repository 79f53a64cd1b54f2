"""Index a video once: the number, time and size of its frames, and where decoding can start. No pixels are kept."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.media.frame_times import MAX_FRAMES, MAX_PIXELS, MAX_SIDE, VideoIndex
from detseg.media.video_files import REPLACE_VIDEO, demuxer_of
from detseg.short_text import one_line

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CHECKED_FRAMES = 48
"""Frames that are decoded to check that each packet gives one frame; otherwise all frames are decoded once."""

BUFFER = 2**16
"""Bytes that FFmpeg reads at once."""


def video_index(path: str | os.PathLike[str]) -> VideoIndex:
    """Index a video file; the result is kept for this process as long as the file does not change.

    The packets are read once; a few frames are decoded to check that there is one for each packet. If there is not,
    or if the container stores no times, all frames are decoded once to count them.

    Raises:
        DataError: not a video, one without frames or with too many or too large frames, or PyAV is not installed and
            OpenCV cannot read it.
        OSError: the file cannot be opened.
    """
    path = os.fspath(path)
    status = os.stat(path)  # noqa: PTH116
    with _lock:
        return _index(path, status.st_mtime_ns, status.st_size)


_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # a thread of the parent process may hold the other one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@lru_cache(maxsize=1024)
def _index(path: str, mtime_ns: int, size: int) -> VideoIndex:
    try:
        import av  # noqa: F401
    except ImportError:
        from detseg.media.video_without_pyav import index_in_order

        return index_in_order(path)
    with opened(path) as (container, stream):
        times, keys, count = _packet_times(container, stream, path)
        missing = max(int(stream.frames or 0) - count, 0)
    decoded = _decode(path, CHECKED_FRAMES if len(times) else MAX_FRAMES + 1)
    if len(times) and not decoded.is_damaged and not np.array_equal(decoded.times, times[: len(decoded.times)]):
        decoded = _decode(path, MAX_FRAMES + 1)  # packets of fields, or of frames that are not displayed
        times = decoded.times if (np.diff(decoded.times) > 0).all() else times[:0]
    if decoded.count > MAX_FRAMES:
        raise _too_many(path)
    if decoded.index.size_hw == (0, 0):
        raise DataError(f"{path}: no frame of this video can be decoded; {REPLACE_VIDEO}")
    if not len(times):
        return replace(decoded.index, times=np.arange(decoded.count), time_base=Fraction(0))
    return replace(decoded.index, times=times, keys=keys, missing=missing)


class _File:
    """A file for FFmpeg that has no name, so that nothing is guessed from it."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  (closed by the owner)
        self.demuxer = demuxer_of(self._file, path)
        self._file.seek(0)
        self.read, self.seek, self.tell, self.close = (
            self._file.read, self._file.seek, self._file.tell, self._file.close
        )  # fmt: skip


def open_container(path: str) -> tuple[InputContainer, VideoStream, _File]:
    """Open a video for demuxing and decoding in one thread; the caller closes the container and the file.

    FFmpeg gets a nameless file and the one demuxer that fits its first bytes, and may open nothing else: neither
    addresses nor other files, whatever the content refers to.

    Raises:
        DataError: not a video, without a video stream, or with too large frames.
        OSError: the file cannot be opened.
    """
    import av

    file = _File(path)
    limits = {"protocol_whitelist": "none", "format_whitelist": file.demuxer, "max_pixels": str(MAX_PIXELS)}
    if file.demuxer == "mov":
        limits["format_whitelist"] = "mov,mp4,m4a,3gp,3g2,mj2"
    if file.demuxer == "matroska":
        limits["format_whitelist"] = "matroska,webm"
    container: Any = None
    try:
        container = av.open(
            file, format=file.demuxer, options={**limits, "threads": "1"}, buffer_size=BUFFER, io_open=_refuse
        )
        streams = [
            stream for stream in container.streams.video if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams} - {"video"})
            raise DataError(
                f"{path}: the file has no video stream{f', only {chr(32).join(kinds)}' if kinds else ''}; use the "
                "file with the video"
            )
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise DataError(f"{path}: the codec of this video is not supported; {REPLACE_VIDEO}")
        _check_size(path, context.height, context.width)
        context.thread_count = 1
        context.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        return container, stream, file
    except (av.FFmpegError, ValueError, RuntimeError, MemoryError) as error:
        if container is not None:
            container.close()
        file.close()
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: corrupt or truncated video ({_reason(error)}); {REPLACE_VIDEO}") from error


def _refuse(url: str, flags: int, options: dict[str, Any]) -> Any:
    raise PermissionError(f"a video may not open other files: {one_line(str(url))}")


@contextmanager
def opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """:func:`open_container`, closed at the end."""
    container, stream, file = open_container(path)
    try:
        yield container, stream
    finally:
        container.close()
        file.close()


def _check_size(path: str, height: int, width: int) -> None:
    if width * height > MAX_PIXELS or max(height, width) > MAX_SIDE:
        raise DataError(
            f"{path}: the frames are {width} x {height} pixels; at most {MAX_PIXELS // 1_000_000} million pixels and "
            f"{MAX_SIDE} per side are decoded; convert it to a smaller size (ffmpeg -i OLD -vf scale=3840:-2 NEW.mp4)"
        )


def _packet_times(
    container: InputContainer, stream: VideoStream, path: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """Times of the frames and of the packets at which decoding can start, both ascending, empty if packets have none;
    and the number of packets.

    Packets before the first such packet, and frames that are displayed before it, cannot be decoded: decoders leave
    them out.
    """
    import av

    times: list[int] = []
    keys: list[int] = []
    count = 0
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            count += 1
            if count > MAX_FRAMES:
                raise _too_many(path)
            if packet.pts is None:
                return np.zeros(0, np.int64), np.zeros(0, np.int64), 0
            if packet.is_keyframe:
                keys.append(packet.pts)
            if keys and packet.pts >= keys[0] and not packet.is_discard:
                times.append(packet.pts)
    except (av.FFmpegError, MemoryError) as error:
        if not times:
            raise DataError(f"{path}: corrupt or truncated video ({_reason(error)}); {REPLACE_VIDEO}") from error
    unique = np.unique(np.array(times, np.int64))
    if len(unique) < len(times):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), count
    return unique, np.unique(np.array(keys, np.int64)), count


def _too_many(path: str) -> DataError:
    return DataError(f"{path}: more than {MAX_FRAMES} frames; cut the video (ffmpeg -i OLD -t 3600 -c copy NEW.mp4)")


@dataclass(frozen=True)
class _Decoded:
    """The first frames of a video.

    Attributes:
        count: number of frames, with those that cannot be decoded.
        times: int64, of each that can be decoded; empty if they have none.
        is_damaged: whether any of them could not be decoded.
        index: what only decoding tells, still without times.
    """

    count: int
    times: npt.NDArray[np.int64]
    is_damaged: bool
    index: VideoIndex


def _decode(path: str, limit: int) -> _Decoded:
    """Decode the first ``limit`` frames in order."""
    times: list[int] = []
    nothing = np.zeros(0, np.int64)
    count, is_damaged, size_hw, orientation = 0, False, (0, 0), 1
    with opened(path) as (container, stream):
        for frame in decoded_frames(demuxed(container, stream)):
            count += 1
            if frame is None:
                is_damaged = True
                continue
            if size_hw == (0, 0):
                orientation = frame_orientation(frame, path)
                size_hw = (frame.height, frame.width) if orientation < 5 else (frame.width, frame.height)
            if frame.pts is not None:
                times.append(frame.pts)
            if count >= limit:
                break
        index = VideoIndex(
            times=nothing,
            keys=nothing,
            time_base=Fraction(stream.time_base or 0),
            size_hw=size_hw,
            orientation=orientation,
            rate=float(stream.average_rate or stream.guessed_rate or 0),
            container=container.format.name.split(",")[0],
            codec=stream.codec_context.name,
        )
    return _Decoded(count, np.array(times, np.int64), is_damaged, index)


def demuxed(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The packets of the stream up to the end of the file, or to where the container is corrupt."""
    import av

    errors = (av.FFmpegError, MemoryError)  # still there if the generator ends with the program, as modules are not
    try:
        yield from container.demux(stream)
    except errors:
        return


def decoded_frames(packets: Iterator[Packet]) -> Iterator[VideoFrame | None]:
    """Frames in the order of display; None where a packet cannot be decoded, and for each frame that may refer to it:
    those up to the next one at which decoding can start."""
    import av

    is_damaged, ends, errors = False, av.error.EOFError, (av.FFmpegError, MemoryError)
    for packet in packets:
        try:
            frames = packet.decode()
        except ends:
            return
        except errors:
            is_damaged = True
            yield None
            continue
        for frame in frames:
            is_damaged = (is_damaged and not frame.key_frame) or frame.is_corrupt
            yield None if is_damaged else frame


def frame_orientation(frame: VideoFrame, path: str) -> int:
    """EXIF orientation 1..8 of a stored frame, from its display matrix.

    Raises:
        DataError: a rotation by other than multiples of 90 degrees.
    """
    from av.sidedata.sidedata import Type

    matrix: Any = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return 1
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32)[:9].tolist()
    signs = tuple(0 if abs(value) < 2**10 else 1 if value > 0 else -1 for value in (a, b, c, d))  # 16.16 fixed point
    if signs not in _ORIENTATIONS:
        raise DataError(f"{path}: the frames are rotated by other than multiples of 90 degrees; {REPLACE_VIDEO}")
    return _ORIENTATIONS[signs]


# x' = a x + c y, y' = b x + d y with y downwards: where stored pixels are displayed
_ORIENTATIONS = {
    (1, 0, 0, 1): 1, (-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8,
}  # fmt: skip


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(str(text), 80)
