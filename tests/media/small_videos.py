"""Make small videos whose frames show their own number as a bit pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'detseg[video]'")

BITS = 8
HEIGHT, WIDTH = 32, 64
FRAMES = 60
TICKS = Fraction(1, 90_000)
RATE = 25
KEY_DISTANCE = 12


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> npt.NDArray[np.uint8]:
    """uint8 [H, W, 3]: bit b of the number is the brightness of column block b; the top row is a colour ramp."""
    image = np.full((height, width, 3), 40, np.uint8)
    block = width // BITS
    for bit in range(BITS):
        if number >> bit & 1:
            image[height // 6 :, block * bit : block * (bit + 1)] = 220
    image[: height // 6, :, 0] = np.linspace(0, 255, width)
    return image


def number_of(image: npt.NDArray[np.uint8]) -> int:
    """The number that an image shows."""
    height, width = image.shape[:2]
    block = width // BITS
    rows = image[height // 3 : height * 2 // 3]
    return sum(1 << bit for bit in range(BITS) if rows[:, block * bit + 2 : block * (bit + 1) - 2].mean() > 130)


def variable_times(frames: int = FRAMES) -> list[int]:
    """Times of frames at intervals of 17 to 100 ms, in ``TICKS``."""
    return np.cumsum(np.random.default_rng(0).choice([1500, 3000, 4500, 9000], frames)).tolist()


def write_video(
    path: Path,
    *,
    frames: int = FRAMES,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    b_frames: int = 0,
    rotation: int = 0,
    first: int = 0,
    size_hw: tuple[int, int] = (HEIGHT, WIDTH),
    options: dict[str, str] | None = None,
) -> Path:
    """Write a video by PyAV; the container is that of the suffix.

    Args:
        path: the file.
        frames: number of frames.
        codec: FFmpeg's name of the encoder.
        times: of each frame, in ``TICKS``; None: ``RATE`` frames a second.
        b_frames: most frames in a row that refer to a later one.
        rotation: degrees that the container states, anticlockwise.
        first: number that the first frame shows.
        size_hw: height and width.
        options: of the container.
    """
    ticks = [int(i / RATE / TICKS) for i in range(frames)] if times is None else times
    is_fine = codec.startswith(("libx", "libvpx"))  # others need the time base of the rate
    with av.open(str(path), "w", options=options or {}) as out:
        stream: Any = out.add_stream(codec, rate=RATE)
        stream.height, stream.width = size_hw
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if is_fine:
            stream.codec_context.time_base = TICKS
        stream.gop_size = KEY_DISTANCE
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "fast", "bf": str(b_frames)}
        if codec == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(first + i, *size_hw), format="rgb24")
            frame.time_base = TICKS if is_fine else Fraction(1, RATE)
            frame.pts = ticks[i] if is_fine else i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def cut_by_edit_list(source: Path, path: Path, frames: int) -> Path:
    """Copy a video such that its first frames are stored, but not displayed: the container starts later."""
    with av.open(str(source)) as old, av.open(
        str(path), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}
    ) as new:  # fmt: skip
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        shift = int(frames / RATE / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.stream = copied
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                new.mux(packet)
    return path


def damage_frame(path: Path, number: int) -> Path:
    """Overwrite a packet, counted in the order of the file, by zeros."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        start, size = path.read_bytes().index(bytes(packet), packet.pos), packet.size
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    return path
