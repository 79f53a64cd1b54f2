"""Videos that are damaged, hostile or no videos: one line with the file and a remedy, and nothing else is opened."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from detseg.errors import DataError
from detseg.media import video_index as index_module
from detseg.media.video import Video
from tests.media.small_videos import FRAMES, av, damage_frame, number_of, write_video

SECRET = "secret.mp4"
SECONDS = 60
"""Limit of one attempt; each takes a second."""


def cut(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=8000)
        for start in range(0, 8000, 1024):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            frame.planes[0].update(bytes(4096))
            frame.sample_rate, frame.pts = 8000, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def giant_frames(path: Path) -> Path:
    """Frames of 30,000 x 30,000 pixels in the stream itself."""
    import cv2
    import numpy as np

    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    start = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, start + 5, 30_000, 30_000)
    path.write_bytes(bytes(jpeg) * 5)
    return path


def with_many_samples(path: Path, count: int) -> Path:
    """A fragment that states ``count`` frames, with nothing stored for each."""
    write_video(path, options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    content = bytearray(path.read_bytes())
    data_offset_only = 1
    struct.pack_into(">II", content, content.index(b"trun") + 4, data_offset_only, count)
    path.write_bytes(content)
    return path


def with_table(path: Path, count: int) -> Path:
    """A sample table that states ``count`` frames of one byte each."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, content.index(b"stsz") + 8, 1, count)
    path.write_bytes(content)
    return path


def compressed_header(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content + struct.pack(">I4s", 16, b"moov") + struct.pack(">I4s", 8, b"cmov"))
    return path


def nested(path: Path) -> Path:
    boxes = b""
    for _ in range(100):
        boxes = struct.pack(">I4s", 8 + len(boxes), b"udta") + boxes
    path.write_bytes(path.read_bytes() + boxes)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def references(path: Path, target: str) -> Path:
    """A MOV whose samples are in another file."""
    content = path.read_bytes()
    box = content.index(b"dref")
    start = box - 4
    old = struct.unpack(">I", content[start:box])[0]
    url = target.encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(url), b"url ", 0) + url
    new = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    grown = len(new) - old
    parts = bytearray(content[:start] + new + content[start + old :])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = parts.index(name) - 4
        struct.pack_into(">I", parts, place, struct.unpack_from(">I", parts, place)[0] + grown)
    path.write_bytes(parts)
    return path


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda f: text(f / "a.mp4", ""), "the file is empty; remove it or download it again"),
    "text": (lambda f: text(f / "a.mp4", "hello"), "not a video of a supported format"),
    "image": (lambda f: text(f / "a.mp4", "P3 1 1 255 1 2 3"), "not a video of a supported format"),
    "truncated before the index": (lambda f: cut(write_video(f / "a.mp4"), 0.5), "corrupt or truncated video"),
    "truncated at once": (lambda f: cut(write_video(f / "a.mkv"), 0.02), "corrupt or truncated video|no video stream"),
    "audio only": (lambda f: audio_only(f / "a.mp4"), "the file has no video stream, only audio"),
    "giant frames in the stream": (lambda f: giant_frames(f / "a.mjpeg"), "pixels; at most 100 million|corrupt|no fra"),
    "a fragment of billions": (lambda f: with_many_samples(f / "a.mp4", 2**32 - 1), "states 4294967.* samples"),
    "a table of billions": (lambda f: with_table(write_video(f / "a.mp4"), 2**31), "states 2147483648 samples"),
    "a compressed header": (lambda f: compressed_header(write_video(f / "a.mov")), r"its header is compressed \(cmov"),
    "nested boxes": (lambda f: nested(write_video(f / "a.mp4")), "boxes in 17 levels, which is too much to read"),
    "playlist": (
        lambda f: text(f / "a.mp4", f"#EXTM3U\n#EXTINF:1,\n{f / SECRET}\n"),
        "not a video of a sup",
    ),
    "playlist of a host": (
        lambda f: text(f / "a.ts", "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n"),
        "not a video of a supported format",
    ),
    "concatenation": (lambda f: text(f / "a.mkv", f"ffconcat version 1.0\nfile {SECRET}\n"), "not a video of a sup"),
    "session description": (
        lambda f: text(f / "a.mp4", "v=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
        "not a video",
    ),
    "DASH manifest": (lambda f: text(f / "a.mp4", '<?xml version="1.0"?><MPD/>'), "not a video of a supported format"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_one_line_with_file_and_remedy(kind: str, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    """In another interpreter with limited memory, which must not end by a signal."""
    write_video(tmp_path / SECRET)
    make, message = HOSTILE[kind]
    path = make(tmp_path)
    code = (
        "import sys; from detseg.media.video import Video; from detseg.errors import DataError\n"
        "try: video = Video(sys.argv[1]); video.frame(0); print('accepted', len(video))\n"
        "except DataError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    lines = result.stdout.strip().splitlines()
    assert len(lines) == 1
    assert str(path) in lines[0]
    assert ";" in lines[0], "a remedy"
    with pytest.raises(DataError, match=message):
        raise DataError(lines[0])
    tally("hostile videos", 1, 1)


def test_control_a_sound_video_is_accepted_and_ffmpeg_would_open_a_playlist(tmp_path: Path) -> None:
    assert len(Video(write_video(tmp_path / SECRET))) == FRAMES
    playlist = text(tmp_path / "a.mkv", f"ffconcat version 1.0\nfile {SECRET}\n")
    with av.open(str(playlist)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES, "without limits"


def test_external_references_are_not_opened(tmp_path: Path) -> None:
    """Samples of another file: they are read from the file itself, or refused."""
    secret = write_video(tmp_path / SECRET, first=100)
    path = references(write_video(tmp_path / "a.mov", first=0), secret.name)
    shown: list[int] = []
    with suppress(DataError):
        shown = [number_of(frame) for _, frame in Video(path).frames()]
    assert not any(number >= 100 for number in shown)


def test_nothing_but_the_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg gets a nameless file, and a function that refuses all others."""
    opened: list[str] = []
    path = references(write_video(tmp_path / "a.mov"), "http://127.0.0.1:9/a.mov")
    monkeypatch.setattr(
        index_module, "_refuse", lambda url, flags, options: opened.append(str(url)) or os.open(os.devnull, 0)
    )
    with suppress(DataError):
        Video(path)
    assert opened == []


def test_a_truncated_video_has_the_frames_that_it_has(tmp_path: Path) -> None:
    path = cut(write_video(tmp_path / "a.mp4", options={"movflags": "faststart"}), 0.8)
    video = Video(path)
    assert 20 < len(video) < FRAMES
    assert video.index.missing > 0
    assert [number_of(video.frame(number)) for number in range(20)] == list(range(20))
    whole = Video(write_video(tmp_path / "b.mp4", options={"movflags": "faststart"}))
    assert whole.index.missing == 0, "control"


def test_a_damaged_packet_costs_the_frames_that_refer_to_it(tmp_path: Path) -> None:
    """Never other pixels than those of the frame: up to the next key frame, frames are damaged."""
    path = damage_frame(write_video(tmp_path / "a.mkv", size_hw=(64, 128)), 18)
    video = Video(path)
    assert len(video) == FRAMES
    shown: dict[int, int] = {}
    for number in reversed(range(FRAMES)):
        with suppress(DataError):
            shown[number] = number_of(video.frame(number))
    with pytest.raises(DataError, match=r"frame_000018.png: this frame is damaged or missing; convert it again"):
        video.frame(18)
    assert all(number == value for number, value in shown.items())
    assert set(range(FRAMES)) - set(shown) == set(range(18, 24)), "the next key frame is 24"


def test_an_endless_video_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_FRAMES", FRAMES - 1)
    for name in ("a.mp4", "a.h264"):
        with pytest.raises(DataError, match=f"{name}: more than {FRAMES - 1} frames; cut the video"):
            Video(write_video(tmp_path / name))
    monkeypatch.setattr(index_module, "MAX_FRAMES", FRAMES)
    assert len(Video(write_video(tmp_path / "b.mp4"))) == FRAMES, "control"


def test_a_size_that_changes(tmp_path: Path) -> None:
    small = write_video(tmp_path / "a.h264", frames=5)
    large = write_video(tmp_path / "b.h264", frames=5, size_hw=(64, 128))
    path = tmp_path / "c.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    video = Video(path)
    assert len(video) == 10
    assert number_of(video.frame(4)) == 4
    with pytest.raises(DataError, match="this frame is 128 x 64 pixels, the first 64 x 32; split the video"):
        video.frame(5)
