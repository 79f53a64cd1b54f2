"""VIA 3: attributes of files as classes of images."""

from __future__ import annotations

from pathlib import Path

from detseg.annotations import find_format, read
from tests.real_exports import sets


def test_classes_of_images(tmp_path: Path) -> None:
    metadata = {
        f"{vid}_x": {"vid": vid, "flg": 0, "z": [], "xy": [], "av": {"1": option}}
        for vid, option in (("1", "0"), ("2", "1"))
    }
    sets.via_3(tmp_path, {"a.jpg": [], "b.jpg": []}, metadata=metadata)
    assert find_format(tmp_path).format == "via"
    table = read(tmp_path)
    assert [record.class_names(table.class_map) for record in table] == [["bolt"], ["nut"]]


def test_circle_through_three_points(tmp_path: Path) -> None:
    sets.via_3(tmp_path, {"a.jpg": [("0", (9, 30, 40, 40, 30, 50, 40))]})
    x, y, width, height = read(tmp_path).boxes_xywh[0].round(3).tolist()
    assert (x, y, width, height) == (30, 30, 20, 20)
