"""Frames of videos are decoded in order before they are read at random, where that is less work, with equal pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import read
from detseg.datasets.dataset import Dataset
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.video_frames import decode_in_order, decoding_cost
from detseg.errors import DataError
from detseg.media import video as video_module
from detseg.preprocess import Preprocessing
from detseg.runtime.reporter import Event, Reporter
from tests.media.small_videos import KEY_DISTANCE, damage_frame, write_video

FRAMES = 2 * KEY_DISTANCE


def labelled(folder: Path, numbers: range, name: str = "clip.mp4", **options: object) -> Path:
    write_video(folder / name, frames=FRAMES, size_hw=(64, 128), **options)  # type: ignore[arg-type]
    lines = [f"{name},{number},{number % 2}" for number in numbers]
    (folder / "labels.csv").write_text("\n".join(["video,frame,action", *lines]))
    return folder


def cached(folder: Path, limit: int = 10**9) -> Dataset:
    table, preprocessing = read(folder), Preprocessing()
    decoded = DecodedImages(table, preprocessing, folder, limit=limit)
    return Dataset(table, preprocessing, task="classify", decoded=decoded)


def test_cost(tmp_path: Path) -> None:
    every = decoding_cost(read(labelled(tmp_path, range(FRAMES), codec="libx265")))
    assert every.rows == list(range(FRAMES))
    assert every.in_order == FRAMES
    assert every.at_random >= 2 * sum(range(1, KEY_DISTANCE + 1)) * 0.8
    few = decoding_cost(read(labelled(tmp_path, range(1))))
    assert (few.at_random, few.in_order) == (1, 1), "a key frame"
    raw = decoding_cost(read(labelled(tmp_path, range(2, 4), "clip.h264")))
    assert (raw.at_random, raw.in_order) == (3 + 4, 4), "from the beginning"


def test_pixels_are_equal_and_the_epoch_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = cached(labelled(tmp_path, range(FRAMES)))
    plain = Dataset(dataset.table, dataset.preprocessing, task="classify")
    expected = [plain[row][0].numpy() for row in range(FRAMES)]
    events: list[Event] = []
    decode_in_order(dataset, 3, Reporter(events.append))
    lines = [event.text for event in events if event.kind == "line"]
    assert len(lines) == 1
    assert f"{FRAMES} frames of videos decoded once, in order: {FRAMES} decoded, in random order " in lines[0]
    monkeypatch.setattr(video_module._Decoder, "frame", None)
    order = np.random.default_rng(0).permutation(FRAMES)
    assert all(np.array_equal(dataset[int(row)][0].numpy(), expected[row]) for row in order)
    with pytest.raises(TypeError):
        plain[0]


def test_frames_that_do_not_fit_are_said(tmp_path: Path) -> None:
    dataset = cached(labelled(tmp_path, range(FRAMES)), limit=1)
    events: list[Event] = []
    decode_in_order(dataset, 5, Reporter(events.append))
    text = events[-1].text
    assert f"{FRAMES} frames of videos are not cached: each of 5 epochs decodes " in text
    assert "detseg convert extracts them" in text


def test_nothing_is_done_where_it_is_no_gain(tmp_path: Path) -> None:
    dataset = cached(labelled(tmp_path, range(1)))
    events: list[Event] = []
    decode_in_order(dataset, 5, Reporter(events.append))
    assert events == []


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    folder = labelled(tmp_path, range(FRAMES), "clip.mkv")
    damage_frame(folder / "clip.mkv", 18)
    with pytest.raises(DataError, match=r"clip\.mkv/frame_0000\d\d\.png: this frame is damaged"):
        decode_in_order(cached(folder), 5, Reporter())
