"""Controls of the cases about YOLO lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import read
from detseg.annotations.formats.yolo.read import read_yolo
from detseg.annotations.plausibility import check_centres
from detseg.errors import DataError
from tests.real_exports import cases_yolo_lines, sets


def test_control_corners_as_centres_would_be_clipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old rule reads the corners as centres: boxes at other places, clipped to the image."""
    cases_yolo_lines.lines(cases_yolo_lines.corners)(tmp_path)
    monkeypatch.setattr("detseg.annotations.formats.yolo.read.check_centres", lambda *_: None)
    table = read_yolo(tmp_path)
    assert table.notes.counts["box clipped to the image"] == len(table.label)
    x1, y1, x2, y2 = cases_yolo_lines.BOXES[0]
    assert not np.allclose(table.boxes_xywh[0], [x1, y1, x2 - x1, y2 - y1], atol=5)


@pytest.mark.parametrize("seed", range(3))
def test_no_false_alarm_about_corners(seed: int) -> None:
    """Random boxes, also many at the border and beyond it, and large ones."""
    rng = np.random.default_rng(seed)
    for largest in (0.1, 0.5, 1.0):
        size = rng.uniform(0.02, largest, (200, 2))
        centre = rng.uniform(size / 2 - 0.05, 1 - size / 2 + 0.05)
        boxes = np.concatenate([centre, size], axis=1) * 500
        check_centres(boxes, np.full((200, 2), 500), [""] * 200, "set")


def test_corners_and_top_left_are_named() -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.7, (50, 2))
    size = rng.uniform(0.1, 0.3, (50, 2))
    sizes = np.full((50, 2), 500)
    with pytest.raises(DataError, match="corners x1, y1, x2, y2"):
        check_centres(np.concatenate([start, start + size], axis=1) * 500, sizes, ["x"] * 50, "set")
    with pytest.raises(DataError, match="top-left corner and the size"):
        check_centres(np.concatenate([start, size], axis=1) * 500, sizes, ["x"] * 50, "set")


def test_track_ids_need_whole_numbers_in_all_lines(tmp_path: Path) -> None:
    good = cases_yolo_lines.joined(" ", cases_yolo_lines.BOXES[0])
    sets.yolo(tmp_path, {"a.jpg": [f"{good} 3", f"{good} 0.5"]})
    with pytest.raises(DataError, match=r"6 fields; .* predictions"):
        read(tmp_path)
    sets.yolo(tmp_path, {"a.jpg": [f"{good} 1", f"{good} 1"]})  # scores of 1, or one track: not decided
    with pytest.raises(DataError, match=r"6 fields; .* predictions"):
        read(tmp_path)
    sets.yolo(tmp_path, {"a.jpg": [f"{good} 3", good]})  # CVAT writes the id only for shapes of tracks
    assert read(tmp_path).notes.counts["track id after the box ignored"] == 1
