"""Exports of real tools whose values are of another type, or of another tool."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import read
from detseg.errors import DataError

FIELD = {
    "B01_flat_segmentation": "1 x outline without a list of rings",
    "B03_string_ids": r"2 x numbers in quotes read \(images.id",
    "B03b_string_image_id": r"1 x numbers in quotes read \(annotations.image_id",
    "B07b_area_str": r"1 x numbers in quotes read \(annotations.area",
    "B07c_iscrowd_str": r"1 x numbers in quotes read \(annotations.iscrowd",
    "B07d_bbox_str": r"1 x numbers in quotes read \(annotations.bbox",
    "I07_coco_export": "width or height 0, taken from the image",
    "M08_cvat": "^$",
    "L02b_mask_grouped": "1 x masks and outlines of one group united",
}
REFUSED = {
    "O03_datumaro": "Datumaro",
    "O05_labelbox_ndjson": "Labelbox",
    "Y28_corners_as_centre": "they look like corners",
}


@pytest.mark.parametrize("name", FIELD)
def test_field_cases(name: str, shared_data: Path) -> None:
    table = read(shared_data / "field_cases" / name)
    with_box = table.boxes_xywh.round().tolist()
    expected = [20, 20, 30, 30]
    if name == "L02b_mask_grouped":
        expected = [20, 20, 50, 50]
        assert table.area[0] == pytest.approx(31 * 31 + 50, abs=10)
    assert all(np.allclose(box, expected, atol=1) for box in with_box)
    assert len(with_box) == len(table)
    assert np.all([len(record) for record in table])
    assert re.search(FIELD[name], "\n".join(table.notes.lines()))


@pytest.mark.parametrize("name", REFUSED)
def test_field_cases_that_are_refused(name: str, shared_data: Path) -> None:
    with pytest.raises(DataError, match=REFUSED[name]):
        read(shared_data / "field_cases" / name)


def test_field_case_without_box_and_outline(shared_data: Path) -> None:
    table = read(shared_data / "field_cases/J02_bbox_empty_list")
    assert [len(record) for record in table] == [1]
    assert table.lost.objects == 1
    assert table.notes.counts["box dropped: box, outline and keypoints are missing"] == 1
