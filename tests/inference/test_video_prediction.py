"""Predict videos and cameras: a line for each frame, an annotated video, ranges, strides, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from detseg.checkpoints.checkpoint import save_checkpoint
from detseg.cli import main
from detseg.errors import DataError
from detseg.inference.predictor import Predictor
from detseg.inference.video_prediction import CAMERA_FRAMES, parse_frames, video_sources
from detseg.media.video import Video
from detseg.media.video_writer import VideoWriter
from detseg.models.create import create_model
from tests.media.small_videos import av, damage_frame, number_of, numbered, variable_times, write_video

COUNT = 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = create_model("ssdlite320_mobilenet_v3_large", ["car", "bus"], weights="none", image_size=64).model
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_checkpoint(path, model)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", frames=COUNT, times=variable_times(COUNT), b_frames=2)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def predict(checkpoint: Path, source: object, output: Path, *options: str) -> int:
    return main(["predict", str(checkpoint), str(source), "--output", str(output), "--device", "cpu", *options])


def test_a_line_for_each_frame_and_an_annotated_video(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(checkpoint, clip, out, "--min-score", "1") == 0
    lines, video = lines_of(out), Video(clip)
    assert [line["frame"] for line in lines] == list(range(COUNT))
    assert [line["file_name"] for line in lines] == [f"clip.mp4/frame_{number:06d}.png" for number in range(COUNT)]
    seconds = [video.seconds(number) for number in range(COUNT)]
    assert [line["seconds"] for line in lines] == pytest.approx(seconds, abs=1e-6)
    prediction = Predictor(checkpoint, "cpu")(video.frame(7))
    assert [result["score"] for result in lines[7]["results"]] == pytest.approx(prediction.scores.tolist())
    drawn = Video(out / "clip-predicted.mp4")
    assert [number_of(frame) for _, frame in drawn.frames()] == list(range(COUNT))
    assert [drawn.seconds(number) for number in range(COUNT)] == pytest.approx(seconds, abs=1e-3)
    images = json.loads((out / "images.json").read_text())["images"]
    assert len(images) == COUNT
    assert json.loads((out / "predictions.json").read_text())[0]["file_name"] == "clip.mp4/frame_000000.png"


def test_range_stride_and_no_drawing(checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(checkpoint, clip, out, "--frames", "3:10", "--stride", "3", "--no-draw") == 0
    assert [line["frame"] for line in lines_of(out)] == [3, 6, 9]
    assert not list(out.glob("*.mp4"))
    assert predict(checkpoint, clip, out, "--frames", "10:") == 0, "an earlier output is replaced"
    assert [line["frame"] for line in lines_of(out)] == [10, 11]
    assert len(Video(out / "clip-predicted.mp4")) == 2


class FakeCamera:
    """Frames that show their numbers; Ctrl-C is pressed after five."""

    opened = True
    last: FakeCamera

    def __init__(self, number: int) -> None:
        self.number, self.count, self.is_open = number, 0, self.opened
        FakeCamera.last = self

    def isOpened(self) -> bool:
        return self.is_open

    def get(self, name: int) -> float:
        return 25.0

    def grab(self) -> bool:
        self.count += 1
        return True

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        if self.count == 5:
            raise KeyboardInterrupt
        self.count += 1
        return True, numbered(self.count - 1)[..., ::-1]

    def release(self) -> None:
        self.is_open = False


@pytest.mark.parametrize(("options", "frames"), [(["--frames", "1:4"], [1, 2, 3]), ([], [0, 1, 2, 3, 4])])
def test_camera(
    options: list[str], frames: list[int], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of frames, or until Ctrl-C."""
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    out = tmp_path / "out"
    assert predict(checkpoint, "camera:2", out, "--min-score", "1", *options) == 0
    assert FakeCamera.last.number == 2
    assert not FakeCamera.last.is_open, "released"
    assert [line["frame"] for line in lines_of(out)] == frames
    assert lines_of(out)[0]["file_name"] == f"camera-2/frame_{frames[0]:06d}.png"
    assert [number_of(frame) for _, frame in Video(out / "camera-2-predicted.mp4").frames()] == frames


def test_a_camera_that_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeCamera, "opened", False)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    assert predict(checkpoint, "camera:0", tmp_path / "out") == 1
    assert "camera:0 cannot be opened; check that it is connected" in capsys.readouterr().err
    assert CAMERA_FRAMES == 1000, "the help of --frames states it"


def test_a_damaged_frame_costs_itself(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damage_frame(write_video(tmp_path / "clip.mkv", frames=COUNT, codec="mjpeg"), 4)
    assert predict(checkpoint, path, tmp_path / "out", "--min-score", "1") == 1
    lines = lines_of(tmp_path / "out")
    assert [line["frame"] for line in lines if "error" in line] == [4]
    assert "frame_000004.png: this frame is damaged or missing" in lines[4]["error"]
    assert "11 frames, " in capsys.readouterr().out
    assert len(Video(tmp_path / "out" / "clip-predicted.mp4")) == COUNT - 1


@pytest.mark.parametrize("text", ["5", "5:5", "9:2", "-1:4", "a:b", "1:2:3", ""])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(DataError, match=r"write START:STOP, such as 100:200"):
        parse_frames(text)


def test_ranges() -> None:
    assert parse_frames(None) == parse_frames(":") == (0, None)
    assert parse_frames("5:") == (5, None)
    assert parse_frames(":7") == (0, 7)
    assert parse_frames("5:7") == (5, 7)


def test_inputs_that_do_not_fit(
    checkpoint: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (tmp_path / "other").mkdir()
    (tmp_path / "clip.mkv").write_bytes(b"")
    for source, options, message in (
        (clip, ["--frames", "12:"], "no frame in --frames 12:; the video has 12 (0..11)"),
        (tmp_path / "gone.mp4", [], "gone.mp4"),
        (tmp_path / "other", ["--stride", "2"], "--frames and --stride are for videos and cameras"),
    ):
        assert predict(checkpoint, source, out, *options) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(DataError, match="images and videos together"):
        video_sources([str(clip), "a.jpg"])
    with pytest.raises(DataError, match="two videos with the same name"):
        video_sources([str(clip), str(tmp_path / "clip.mkv")])
    assert video_sources(["a.jpg", "camera.jpg", "folder"]) == []


def test_a_source_is_never_replaced(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=3)
    link = tmp_path / "clip-predicted.mp4"
    link.hardlink_to(path)
    content = path.read_bytes()
    assert predict(checkpoint, path, tmp_path) == 1
    assert "would be replaced by its predictions; give another --output" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_a_video_that_is_interrupted_is_not_left_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", 25) as writer:
            writer.write(numbered(1), 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_hw", [(31, 65), (32, 64), (1, 1)])
def test_odd_sizes_are_extended(size_hw: tuple[int, int], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size_hw, 3)).astype(np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for number in range(3):
            writer.write(image, number / 25)
    video = Video(tmp_path / "a.mp4")
    assert len(video) == 3
    assert video.index.size_hw == tuple(side + side % 2 for side in size_hw)


def test_mpeg4_where_there_is_no_h264(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        for number in range(10):
            writer.write(numbered(number), number / 25)
    video = Video(tmp_path / "a.mp4")
    assert video.index.codec == "mpeg4"
    assert [number_of(frame) for _, frame in video.frames()] == list(range(10))
    assert video.seconds(9) == pytest.approx(9 / 25, abs=0.01)
