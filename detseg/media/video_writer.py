"""Write a video as MP4: H.264 if FFmpeg has an encoder for it, else MPEG-4."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError
from detseg.runtime.files import write_errors

TICKS = Fraction(1, 90_000)
"""Unit of the times of frames, in seconds."""

_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "20", "preset": "veryfast"}),
    ("libopenh264", {}),
    ("mpeg4", {}),
)
_MPEG4_BITS_PER_PIXEL = 1.0


class VideoWriter:
    """Writes frames with their times; the file appears under its name when it is complete.

    An odd height or width is extended by its last row or column, because the encoders need even ones.

    Args:
        path: the file, ``.mp4``.
        rate: frames a second, a hint for players.

    Raises:
        DataError: PyAV is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], rate: float) -> None:
        try:
            import av
        except ImportError:
            raise DataError(
                f"{path}: writing videos needs PyAV: pip install 'detseg[video]', or pass --no-draw"
            ) from None
        self.path = Path(path)
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(self._partial), "w", format="mp4")
        self._rate = Fraction(rate or 25).limit_denominator(1001)
        self._stream: Any = None
        self._unit, self._last = TICKS, -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        is_complete = kind is None and self._stream is not None
        try:
            if is_complete:
                self._mux(self._stream.encode())
            self._container.close()
            if is_complete:
                self._partial.replace(self.path)
        finally:
            self._container = self._stream = None  # the encoder is freed, with its threads
            self._partial.unlink(missing_ok=True)

    def write(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        """Append uint8 [H, W, 3] RGB, which is shown from ``seconds`` on; all frames have one size.

        Raises:
            WriteError: the disk is full.
        """
        import av

        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self._stream is None:
            self._open_stream(image.shape[0], image.shape[1])
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", threads=1)  # as in Video: threads do not survive a fork
        frame.pts = self._last = max(round(seconds / self._unit), self._last + 1)
        frame.time_base = self._unit
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: Any) -> None:
        with write_errors(self.path, sum(packet.size for packet in packets)):
            self._container.mux(packets)

    def _open_stream(self, height: int, width: int) -> None:
        import av

        for name, options in _ENCODERS:
            if name not in av.codecs_available:
                continue
            stream: Any = self._container.add_stream(name, rate=self._rate, options=dict(options))
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.time_base = self._unit = TICKS
            if name == "mpeg4":  # its times have 16 bits
                stream.codec_context.time_base = self._unit = 1 / (self._rate * 8)
                stream.bit_rate = int(_MPEG4_BITS_PER_PIXEL * height * width * self._rate)
            self._stream = stream
            return
        raise DataError(f"{self.path}: this build of FFmpeg has no encoder for MP4; pass --no-draw")
