"""Controls of the cases about missing images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.image_lookup import MISSING
from detseg.annotations.table import IMAGE_COLUMNS, INSTANCE_COLUMNS
from detseg.errors import DataError
from tests.real_exports import cases_missing_images, sets
from tests.real_exports.cases_numbers_in_quotes import GOOD


def columns(table: AnnotationTable) -> list[Any]:
    values = [getattr(table, name).tolist() for name in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS) if name != "annotation_id"]
    return [*values, [repr(table.segmentation[row]) for row in range(len(table.label))]]


WRITERS = ("coco", "voc", "yolo", "cvat", "labelme", "via", "csv")


@pytest.mark.parametrize("name", WRITERS)
def test_more_than_half_is_refused(name: str, tmp_path: Path) -> None:
    getattr(cases_missing_images, name)(tmp_path)
    for image in ("1.jpg", "2.jpg"):
        (path,) = tmp_path.rglob(image)
        path.unlink()
    with pytest.raises(DataError, match=r"2 of 3 .* --images") as caught:
        read(tmp_path)
    assert "--missing-images" not in str(caught.value)
    with pytest.raises(DataError, match=r"2 of 3 .*--images \(more than half, which --missing-images drop does not"):
        read(tmp_path, missing_images="drop")


@pytest.mark.parametrize("name", WRITERS)
def test_control_nothing_is_left_out_of_a_complete_set(name: str, tmp_path: Path) -> None:
    getattr(cases_missing_images, name)(tmp_path)
    table = read(tmp_path, missing_images="drop")
    assert len(table) == 3
    assert MISSING not in table.notes.counts


def test_objects_of_the_images_left_out(tmp_path: Path) -> None:
    """The instances of the other images keep their places, masks and keypoints; those of missing ones are gone."""
    points = {"keypoints": [20, 20, 2], "num_keypoints": 1}
    items = [{**GOOD, **points}, {**GOOD, "segmentation": {"size": [72, 96], "counts": [0, 6912]}}]
    sets.coco(tmp_path, {f"{number}.jpg": items for number in range(4)}, ["bolt"])
    whole = read(tmp_path)
    (tmp_path / "images/1.jpg").unlink()
    table = read(tmp_path, missing_images="drop")
    assert columns(table)[0] == [1, 3, 4]
    for name in ("boxes_xywh", "area", "annotation_id"):
        expected = getattr(whole.subset([0, 2, 3]), name)[whole.subset([0, 2, 3]).instance_rows()]
        np.testing.assert_array_equal(getattr(table, name), expected)


def test_labels_of_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "c.jpg"):
        sets.image(tmp_path / "images" / name)
    sets.put(tmp_path / "labels.csv", "filename,label\na.jpg,x\nb.jpg,y\nc.jpg,y\n")
    with pytest.raises(DataError, match=r"1 of 3 images are not in .*: b.jpg;.*--missing-images drop"):
        read(tmp_path)
    table = read(tmp_path, missing_images="drop")
    assert [record.path.name for record in table] == ["a.jpg", "c.jpg"]
    assert table.notes.counts[MISSING] == 1


def test_the_choices(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing_images is 'skip'; choose error or drop"):
        read(tmp_path, missing_images="skip")
