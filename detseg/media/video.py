"""Read frames of a video exactly, by number: frame n is the one that is displayed n frames after the first."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.media.frame_times import VideoIndex
from detseg.media.video_files import REPLACE_VIDEO, frame_name, frame_number, frame_path
from detseg.media.video_index import (
    decoded_frames,
    demuxed,
    frame_orientation,
    open_container,
    video_index,
)
from detseg.orientation import orient_image

if TYPE_CHECKING:
    from av import Packet
    from av.video.frame import VideoFrame

OPEN_VIDEOS = 4
"""Decoders that each thread keeps open, those that were used last: a decoder holds some frames in memory."""

NEAR = 8
"""Frames that are decoded on the way to a later one, even if seeking would skip them: seeking costs more."""


class Video:
    """The frames of a video file.

    Any number of objects, threads and processes (forked, or by pickle) may read the same file at once: each thread has
    a decoder of its own. Frames in ascending order are decoded without seeking; any other frame from the packet before
    it at which decoding can start, or from the beginning where the container cannot seek. The time of each frame is
    compared with the index, so a frame is the right one or an error.

    Args:
        path: the file.

    Attributes:
        path: the file.
        index: see :class:`detseg.media.frame_times.VideoIndex`.

    Raises:
        DataError: not a video that can be read.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.index = video_index(self.path)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.index)

    def __repr__(self) -> str:
        height, width = self.index.size_hw
        return f"Video({self.path!r}, {len(self)} frames, {width} x {height} pixels, {self.index.rate:.4g} a second)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Video, (self.path,)

    def check(self, number: int) -> None:
        """DataError unless the video has a frame of this number."""
        if not 0 <= number < len(self):
            raise DataError(
                f"{frame_path(self.path, max(number, 0))}: there is no frame {number}, the video has {len(self)} "
                f"(0..{len(self) - 1}); correct the frame number, or use the whole video"
            )

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """Frame ``number`` as uint8 [H, W, 3] RGB, upright and contiguous.

        Raises:
            DataError: there is no such frame, or it is damaged.
        """
        self.check(number)
        return _decoder(self.path, self.index).frame(number)

    def frames(
        self, start: int = 0, stop: int | None = None, stride: int = 1
    ) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """(number, frame) for ``range(start, stop, stride)``; see :meth:`frame`. ``stop`` None is the end."""
        for number in range(start, len(self) if stop is None else stop, stride):
            yield number, self.frame(number)

    def seconds(self, number: int) -> float:
        """Time of a frame in seconds from the first frame."""
        return self.index.seconds(number)

    def kind(self, name: str) -> str:
        """ "file" for a frame, "folder" for "", and "" for a name that does not exist; see ``files.Container``."""
        number = frame_number(name)
        return "folder" if not name else "file" if number is not None and number < len(self) else ""

    def names(self, folder: str) -> list[str]:
        """Names of all frames."""
        return [frame_name(number) for number in range(len(self))]

    def size(self, name: str) -> int:
        """Bytes of a frame as :meth:`open` gives it."""
        return FrameFile(self, name).seek(0, os.SEEK_END)

    def png(self, name: str) -> bytes:
        """A frame as a PNG file."""
        self.check(number := -1 if (stated := frame_number(name)) is None else stated)
        encoded, content = cv2.imencode(".png", self.frame(number)[..., ::-1])
        assert encoded, "OpenCV always encodes uint8 RGB"
        return content.tobytes()

    def open(self, name: str) -> BinaryIO:
        """A frame as an uncompressed image file (PPM); it is decoded when its pixels are read, not for its header."""
        return FrameFile(self, name)  # type: ignore[return-value]


class FrameFile(io.RawIOBase):
    """A frame of a video as an image file in memory.

    Raises:
        DataError: there is no such frame; when pixels are read: it is damaged.
    """

    def __init__(self, video: Video, name: str) -> None:
        super().__init__()
        self.name = f"{video.path}/{name}"
        number = frame_number(name)
        self._video, self._number = video, -1 if number is None else number
        video.check(self._number)
        height, width = video.index.size_hw
        self._head = f"P6\n{width} {height}\n255\n".encode()
        self._size = len(self._head) + 3 * height * width
        self._position = 0
        self._pixels = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readall(self) -> bytes:
        content = b"".join((self._head, self._decoded()))[self._position :]
        self._position += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start = self._position
        if start < len(self._head):
            content = memoryview(self._head)[start : start + len(view)]  # ends with the header
        else:
            start -= len(self._head)
            content = self._decoded()[start : start + len(view)]
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _decoded(self) -> memoryview:
        if not self._pixels:
            self._pixels = memoryview(self._video.frame(self._number).data).cast("B")
        return self._pixels


class _Decoder:
    """A decoder for one thread, at a position in the video."""

    def __init__(self, path: str, index: VideoIndex) -> None:
        self._path, self._index = path, index
        self._last: tuple[int, npt.NDArray[np.uint8]] | None = None
        self._open()

    def _open(self) -> None:
        self._container, self._stream, self._file = open_container(self._path)
        self._next, self._is_damaged = 0, False  # number of the next frame; whether it refers to a missing one
        self._frames = decoded_frames(demuxed(self._container, self._stream))

    def close(self) -> None:
        self._container.close()
        self._file.close()

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        if self._last is not None and self._last[0] == number:
            return self._last[1].copy()
        keys = self._index.keys
        key = int(np.searchsorted(keys, self._index.times[number], side="right")) - 1 if len(keys) else -1
        first = int(np.searchsorted(self._index.times, keys[key])) if key >= 0 else 0
        is_ahead = self._next <= number and (number - self._next < NEAR or first <= self._next)
        frame = self._read_to(number) if is_ahead else None
        for earlier in (0, 1):
            if frame is None and key - earlier >= 0:
                self._seek(key - earlier)
                frame = self._read_to(number)
        if frame is None and not is_ahead and key < 0:
            self.close()
            self._open()
            frame = self._read_to(number)
        if frame is None:
            raise DataError(f"{frame_path(self._path, number)}: this frame is damaged or missing; {REPLACE_VIDEO}")
        pixels = self._pixels(frame, number)
        self._last = number, pixels
        return pixels.copy()

    def _pixels(self, frame: VideoFrame, number: int) -> npt.NDArray[np.uint8]:
        # one thread: a converter with threads cannot be freed in a forked process, which does not have them
        rgb = frame.to_ndarray(format="rgb24", threads=1)
        pixels = orient_image(rgb, frame_orientation(frame, self._path))
        if pixels.shape[:2] != self._index.size_hw:
            height, width = self._index.size_hw
            raise DataError(
                f"{frame_path(self._path, number)}: this frame is {pixels.shape[1]} x {pixels.shape[0]} pixels, the "
                f"first {width} x {height}; split the video where its size changes"
            )
        return pixels

    def _read_to(self, number: int) -> VideoFrame | None:
        """The frame of this number, if it is among those that come; earlier ones are left out."""
        index = self._index
        for frame in self._frames:
            if not len(index.keys):
                current = self._next
            elif frame is None:
                continue
            else:
                current = int(np.searchsorted(index.times, frame.pts or 0))
                if current == len(index) or index.times[current] != frame.pts:
                    continue  # not in the index: before the first key frame
                if current < self._next:
                    continue  # displayed before the frame at which decoding started
                self._is_damaged = not frame.key_frame and (self._is_damaged or current > self._next)
            self._next = current + 1
            if current >= number:
                return frame if current == number and not self._is_damaged else None
        self._next = len(index)
        return None

    def _seek(self, key: int) -> None:
        """Continue with the packet of ``keys[key]``, or with an earlier one at which decoding can start."""
        keys = self._index.keys
        for target in (key, key - 1):  # where packets are found by their decoding time, seeking leads too far
            packets = self._packets_from(int(keys[target]), int(keys[key])) if target >= 0 else None
            if packets is not None:
                self._frames = decoded_frames(packets)
                return
        self.close()
        self._open()

    def _packets_from(self, target: int, latest: int) -> Iterator[Packet] | None:
        """Packets from the first key packet after seeking to ``target``; None if its time is after ``latest``."""
        import av

        try:
            self._container.seek(target, stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        packets = demuxed(self._container, self._stream)
        for packet in packets:
            if packet.size and packet.is_keyframe and packet.pts is not None:
                if packet.pts > latest:
                    return None
                self._next, self._is_damaged = int(np.searchsorted(self._index.times, packet.pts)), False
                return chain([packet], packets)
        return None


class _Decoders(threading.local):
    """The open decoders of a thread, those that were used last at the end."""

    def __init__(self) -> None:
        self.of: OrderedDict[tuple[str, int], _Decoder] = OrderedDict()


_decoders = _Decoders()


def _decoder(path: str, index: VideoIndex) -> _Decoder:
    decoders = _decoders.of
    key = (path, id(index))
    decoder = decoders.pop(key, None)
    if decoder is None:
        if len(decoders) >= OPEN_VIDEOS:
            decoders.popitem(last=False)[1].close()
        decoder = _new_decoder(path, index)
    decoders[key] = decoder
    return decoder


def _new_decoder(path: str, index: VideoIndex) -> Any:
    try:
        import av  # noqa: F401
    except ImportError:
        from detseg.media.video_without_pyav import InOrder

        return InOrder(path, index)
    return _Decoder(path, index)


def _forget_decoders() -> None:
    """A forked process opens files of its own: an open file has one position, which it would share."""
    global _decoders
    _decoders = _Decoders()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_decoders)
