"""Frames of videos are exact, whatever the container, and in any order, thread and process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg.errors import DataError
from detseg.image_container import check_header
from detseg.images import MAX_PIXELS, MAX_SIDE, decode_image, read_header
from detseg.media import video as video_module
from detseg.media import video_index as index_module
from detseg.media.video import Video
from detseg.media.video_files import frame_path, is_video, split_frame
from tests.media.small_videos import (
    FRAMES,
    HEIGHT,
    KEY_DISTANCE,
    RATE,
    WIDTH,
    av,
    cut_by_edit_list,
    number_of,
    variable_times,
    write_video,
)

READ = 40
"""Frames of each video that are read in random order."""

VIDEOS: dict[str, Callable[[Path], Path]] = {
    "variable-rate mp4": lambda folder: write_video(folder / "a.mp4", times=variable_times()),
    "variable-rate mkv": lambda folder: write_video(folder / "a.mkv", times=variable_times(), b_frames=2),
    "MPEG-TS": lambda folder: write_video(folder / "a.ts", b_frames=2),
    "B-frames mp4": lambda folder: write_video(folder / "a.mp4", b_frames=3),
    "start offset": lambda folder: write_video(
        folder / "a.mp4", times=[90_000 + 3600 * i for i in range(FRAMES)], b_frames=2
    ),
    "H.265 mkv": lambda folder: write_video(folder / "a.mkv", codec="libx265", times=variable_times()),
    "H.265 TS": lambda folder: write_video(folder / "a.ts", codec="libx265"),
    "WebM": lambda folder: write_video(folder / "a.webm", codec="libvpx", times=variable_times()),
    "AVI": lambda folder: write_video(folder / "a.avi", codec="mpeg4"),
    "MPEG": lambda folder: write_video(folder / "a.mpg", codec="mpeg2video"),
    "raw H.264": lambda folder: write_video(folder / "a.h264", b_frames=2),
    "raw H.265": lambda folder: write_video(folder / "a.hevc", codec="libx265"),
    "motion JPEG": lambda folder: write_video(folder / "a.mjpeg", codec="mjpeg"),
}
IN_ORDER = ("raw H.264", "raw H.265")
"""Those without times, which can only be read in order."""


def random_order(frames: int = FRAMES) -> list[int]:
    return np.random.default_rng(1).permutation(frames)[:READ].tolist()


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_are_exact(name: str, tmp_path: Path, tally: Callable[[str, int, int], None]) -> None:
    """In random order, and the same pixels as in order."""
    video = Video(VIDEOS[name](tmp_path))
    in_order = [frame for _, frame in video.frames()]
    assert [number_of(frame) for frame in in_order] == list(range(FRAMES))
    assert (len(video.index.keys) == 0) == (name in IN_ORDER)
    order = random_order()
    exact = sum(np.array_equal(video.frame(number), in_order[number]) for number in order)
    tally(f"frames of {name}", exact, READ)
    assert in_order[0].shape == (HEIGHT, WIDTH, 3)


def test_control_seeking_by_opencv_is_not_exact(tmp_path: Path) -> None:
    wrong = 0
    for name in ("variable-rate mp4", "variable-rate mkv", "MPEG-TS"):
        capture = cv2.VideoCapture(str(VIDEOS[name](tmp_path)))
        for number in random_order():
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            read, pixels = capture.read()
            wrong += not read or number_of(pixels) != number
    assert wrong > READ


def test_frames_before_an_edit_list_are_not_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", b_frames=2)
    video = Video(cut_by_edit_list(whole, tmp_path / "cut.mp4", 7))
    assert [number_of(frame) for _, frame in video.frames()] == list(range(7, FRAMES))
    assert all(number_of(video.frame(number)) == number + 7 for number in random_order(FRAMES - 7))


def test_frames_before_the_first_key_frame_are_not_counted(tmp_path: Path) -> None:
    """A recording that starts anywhere in a stream."""
    content = write_video(tmp_path / "a.ts", b_frames=2).read_bytes()
    (tmp_path / "b.ts").write_bytes(content[188 * (len(content) // 188 // 3) :])
    video = Video(tmp_path / "b.ts")
    shown = [number_of(frame) for _, frame in video.frames()]
    assert shown == list(range(shown[0], FRAMES))
    assert shown[0] % KEY_DISTANCE == 0
    assert shown[0] > 0
    assert [number_of(video.frame(number)) for number in (len(video) - 1, 1, 0)] == [FRAMES - 1, shown[1], shown[0]]


def test_in_order_reading_does_not_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeks: list[int] = []
    original = video_module._Decoder._seek

    def seek(decoder: video_module._Decoder, key: int) -> None:
        seeks.append(key)
        original(decoder, key)

    monkeypatch.setattr(video_module._Decoder, "_seek", seek)
    video = Video(write_video(tmp_path / "a.mp4", b_frames=2))
    assert [number_of(frame) for _, frame in video.frames(stride=3)] == list(range(0, FRAMES, 3))
    assert seeks == []
    assert number_of(video.frame(5)) == 5
    assert seeks == [0], "control"


@pytest.mark.parametrize(("rotation", "orientation"), [(90, 8), (180, 3), (-90, 6)])
def test_rotation_is_that_of_other_players(rotation: int, orientation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", rotation=rotation, frames=3)
    video = Video(path)
    assert video.index.orientation == orientation
    pixels = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    assert np.array_equal(video.frame(0), pixels)
    assert video.index.size_hw == pixels.shape[:2]


def test_threads_and_processes_read_at_once(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4", b_frames=2))
    assert number_of(video.frame(30)) == 30  # this process has an open decoder, which children must not share
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda number: number_of(video.frame(number)), random_order())) == random_order()
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(Shown(video), random_order(), chunksize=5) == random_order()
    assert number_of(video.frame(31)) == 31
    assert number_of(pickle.loads(pickle.dumps(video)).frame(12)) == 12


@pytest.mark.parametrize(("threads", "expected"), [(1, 0), (2, None)], ids=["as read", "control"])
def test_a_forked_process_frees_what_it_inherits(threads: int, expected: int | None, tmp_path: Path) -> None:
    """FFmpeg waits without end for threads that a forked process does not have."""
    video = Video(write_video(tmp_path / "a.mp4", frames=5))
    video.frame(3)
    frames = [av.VideoFrame(64, 64, "yuv420p")]
    frames[0].to_ndarray(format="rgb24", threads=threads)

    def free() -> None:
        frames.clear()
        video_module._decoders.of.clear()
        gc.collect()

    process = multiprocessing.get_context("fork").Process(target=free)
    process.start()
    process.join(20 if expected == 0 else 1)
    code = process.exitcode
    process.kill()
    process.join()
    assert code == expected


def test_a_program_ends_quietly_with_an_open_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30, b_frames=2)
    code = f"from detseg.media.video import Video; video = Video({str(path)!r}); video.frame(3)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


class Shown:
    """A picklable function of a frame number."""

    def __init__(self, video: Video) -> None:
        self.video = video

    def __call__(self, number: int) -> int:
        return number_of(self.video.frame(number))


def test_a_changed_file_is_indexed_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=5)
    assert len(Video(path)) == 5
    write_video(path, frames=9, first=3)
    os.utime(path, ns=(1, 1))
    assert [number_of(frame) for _, frame in Video(path).frames()] == list(range(3, 12))


def test_a_frame_is_an_image_file(tmp_path: Path) -> None:
    """Its header is read without decoding."""
    video = Video(write_video(tmp_path / "a.mp4"))
    file = video.open("frame_000017.png")
    check_header(file, "frame")
    header = read_header(file.read(15) + bytes(3 * HEIGHT * WIDTH))
    assert header.size_hw == (HEIGHT, WIDTH)
    assert not file._pixels, "not decoded"  # type: ignore[attr-defined]
    file.seek(0)
    content = file.read()
    assert len(content) == video.size("frame_000017.png")
    assert np.array_equal(decode_image(content), video.frame(17))
    assert video.kind("") == "folder"
    assert video.kind("frame_17.PNG") == "file"
    assert video.kind(f"frame_{FRAMES}.png") == video.kind("other.png") == ""
    assert video.names("")[17] == "frame_000017.png"


def test_paths_of_frames() -> None:
    assert frame_path("a/clip.mp4", 7) == "a/clip.mp4/frame_000007.png"
    assert split_frame("a/clip.MP4/frame_000007.png") == ("a/clip.MP4", 7)
    assert split_frame("a/clip.mp4/frame_7.PNG") == ("a/clip.mp4", 7)
    for other in ("a/clip/frame_000007.png", "clip.mp4", "clip.mp4/frame_x.png", "clip.mp4/frame_1/a.png", ""):
        assert split_frame(other) is None, other
    assert is_video("a/CLIP.MOV")
    assert not is_video("clip.mp4.txt")


def test_numbers_out_of_range(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "a.mp4", frames=5))
    for number in (-1, 5, 10**12):
        with pytest.raises(DataError, match=r"there is no frame .*, the video has 5 \(0..4\)"):
            video.frame(number)
    assert video.seconds(4) == pytest.approx(4 / RATE)
    assert repr(video).endswith("a.mp4', 5 frames, 64 x 32 pixels, 25 a second)")


def test_limits_are_those_of_images() -> None:
    assert (MAX_PIXELS, MAX_SIDE) == (index_module.MAX_PIXELS, index_module.MAX_SIDE)


def test_without_pyav_frames_are_read_in_order(tmp_path: Path) -> None:
    """In another interpreter, in which PyAV cannot be imported."""
    path = write_video(tmp_path / "a.mkv", times=variable_times(), b_frames=2)
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from detseg.media.video import Video\n"
        "video = Video(sys.argv[1])\n"
        "print(len(video), video.index.codec, *(int(video.frame(i).sum()) for i in (0, 7, 50, 3)))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, codec, *sums = result.stdout.split()
    assert (int(count), codec) == (FRAMES, "OpenCV")
    frames = [Video(path).frame(number) for number in (0, 7, 50, 3)]
    assert [int(total) for total in sums] == pytest.approx([int(frame.sum()) for frame in frames], rel=2e-3)


def test_real_video(shared_data: Path) -> None:
    """Frames in random order are those in order, and what OpenCV reads in order is nearly the same."""
    path = shared_data / "videos" / "car-detection.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is not present")
    video, capture = Video(path), cv2.VideoCapture(str(path))
    frames = {}
    for number in range(60):
        pixels = capture.read()[1]
        if number % 12 == 5:
            frames[number] = pixels[..., ::-1]
    for number in sorted(frames, reverse=True):
        assert np.abs(video.frame(number).astype(int) - frames[number]).mean() < 2
        assert np.abs(video.frame(number + 3).astype(int) - frames[number]).mean() > 0.5, "control"
    assert av is not None
