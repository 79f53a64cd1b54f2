"""``inspect VIDEO``: size, rate, counted frames, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detseg.cli import main
from detseg.images import decode_image
from tests.media.small_videos import FRAMES, HEIGHT, WIDTH, damage_frame, variable_times, write_video


def test_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.mkv", times=variable_times(), b_frames=2)
    assert main(["inspect", str(path), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert f"width {WIDTH}, height {HEIGHT}" in printed
    assert f"frames: {FRAMES} (counted), 25 frames a second on average (variable)" in printed
    assert "format: h264 in matroska" in printed
    assert decode_image(tmp_path / "out" / "sheet.jpg").shape[2] == 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["frames"], summary["is_seekable"], summary["errors"]) == (FRAMES, True, [])


def test_json_is_the_only_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_video(tmp_path / "a.h264", frames=5)
    assert main(["inspect", str(path), "--json", "--output", str(tmp_path / "out")]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["is_seekable"], summary["is_variable"]) == (5, False, False)


def test_damaged_frames_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = damage_frame(write_video(tmp_path / "a.mkv", frames=12, codec="mjpeg"), 4)
    assert main(["inspect", str(path), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "frame_000004.png: this frame is damaged or missing" in captured.out
    assert "frame_000004.png: this frame is damaged or missing" in captured.err
    errors = json.loads((tmp_path / "out" / "summary.json").read_text())["errors"]
    assert [error["number"] for error in errors] == [4]


def test_a_video_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    assert main(["inspect", str(tmp_path / "a.mp4")]) == 1
    assert "a.mp4: not a video of a supported format" in capsys.readouterr().err
