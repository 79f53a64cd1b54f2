"""A run on a video is the run on its frames as PNG files, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.cli import main
from detseg.media.video import Video
from detseg.reports.sheet import write_image
from tests.annotations.test_videos import write_cvat
from tests.media.small_videos import write_video

FRAMES = 12
OPTIONS = (
    *("--model", "ssdlite320_mobilenet_v3_large", "--weights", "none", "--image-size", "96", "--device", "cpu"),
    *("--epochs", "1", "--batch-size", "3", "--val", "0.25", "--workers", "2"),
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a video with CVAT annotation."""
    folder = tmp_path_factory.mktemp("data") / "video"
    folder.mkdir()
    write_video(folder / "clip.mp4", frames=FRAMES, b_frames=2, size_hw=(64, 96))
    write_cvat(folder / "annotations.xml", {number: (4 + number, 8, 40 + number, 50) for number in range(FRAMES)})
    return folder


@pytest.fixture(scope="module")
def frames(video: Path) -> Path:
    """The same with PNG files in place of the video."""
    folder = video.parent / "frames"
    (folder / "clip.mp4").mkdir(parents=True)
    (folder / "annotations.xml").write_bytes((video / "annotations.xml").read_bytes())
    for number, image in Video(video / "clip.mp4").frames():
        write_image(folder / "clip.mp4" / f"frame_{number:06d}.png", image)
    return folder


def test_convert_extracts_the_frames(video: Path, frames: Path, tmp_path: Path) -> None:
    assert main(["convert", str(video), "--to", "coco", "--output", str(tmp_path / "coco")]) == 0
    written = sorted(path.name for path in (tmp_path / "coco").rglob("*.png"))
    assert written == sorted(path.name for path in (frames / "clip.mp4").iterdir())
    one = next((tmp_path / "coco").rglob("frame_000007.png"))
    assert one.read_bytes() == (frames / "clip.mp4" / one.name).read_bytes()


@pytest.mark.usefixtures("no_images")
def test_losses_are_those_of_the_frames(
    video: Path, frames: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    runs = {}
    for data in (video, frames):
        assert main(["train", str(data), "--output", str(tmp_path / data.name), *OPTIONS]) == 0
        runs[data] = rows(tmp_path / data.name)
    assert runs[video] == runs[frames]
    assert [row["epoch"] for row in runs[video]] == [1]


@pytest.mark.slow
@pytest.mark.usefixtures("no_images")
def test_control_the_losses_depend_on_one_frame(
    frames: Path, tmp_path: Path, rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    assert main(["train", str(frames), "--output", str(tmp_path / "frames"), *OPTIONS]) == 0
    write_image(frames / "clip.mp4" / "frame_000003.png", np.zeros((64, 96, 3), np.uint8))
    assert main(["train", str(frames), "--output", str(tmp_path / "other"), *OPTIONS]) == 0
    assert rows(tmp_path / "other") != rows(tmp_path / "frames")
