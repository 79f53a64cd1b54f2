"""Cases specific to CSV files of landmarks; the common ones are in test_shapes.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detseg.annotations.formats.csv.landmarks import find_csv_landmarks, read_csv_landmarks
from detseg.annotations.formats.format import Detected
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError

HEADER = "filename,left_eye_x,left_eye_y,right_eye_x,right_eye_y,right_eye_v\n"


def read(folder: Path, text: str, name: str = "points.csv") -> AnnotationTable:
    for image in "ab":
        Image.new("RGB", (60, 40)).save(folder / f"{image}.png")
    (folder / name).write_text(text, encoding="utf-8")
    return read_csv_landmarks(folder / name)


@pytest.mark.parametrize(
    ("row", "points", "box"),
    [
        ("10,5,30,25,2", [[10, 5, 2], [30, 25, 2]], [10, 5, 20, 20]),
        ("10,5,30,25,", [[10, 5, 2], [30, 25, 2]], [10, 5, 20, 20]),
        ("10,5,30,25,1.0", [[10, 5, 2], [30, 25, 1]], [10, 5, 20, 20]),
        ("10,5,30,25,0", [[10, 5, 2], [0, 0, 0]], [6, 1, 8, 8]),
        ("10,5,,,", [[10, 5, 2], [0, 0, 0]], [6, 1, 8, 8]),
        ("10,5,NaN,nan,", [[10, 5, 2], [0, 0, 0]], [6, 1, 8, 8]),
        ("10,5,-1,-1,", [[10, 5, 2], [0, 0, 0]], [6, 1, 8, 8]),
        ("10,5,30,5,", [[10, 5, 2], [30, 5, 2]], [10, 1, 20, 8]),
        ("0,0,30,25,", [[0, 0, 2], [30, 25, 2]], [0, 0, 30, 25]),  # a point in the corner is labelled
    ],
)
def test_points(tmp_path: Path, row: str, points: list[list[float]], box: list[float]) -> None:
    table = read(tmp_path, f"{HEADER}a.png,{row}\n")
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [points]
    assert table.boxes_xywh.tolist() == [box]
    assert ("box around landmarks widened to 8 px" in table.notes.counts) is (8 in box)
    assert table.class_map.names == ("object",)


def test_the_schema(tmp_path: Path) -> None:
    schema = read(tmp_path, f"{HEADER}a.png,1,2,3,4,\n").keypoint_schema
    assert schema is not None
    assert (schema.names, schema.swaps) == (("left_eye", "right_eye"), ((0, 1),))


def test_an_image_without_landmarks_is_negative(tmp_path: Path) -> None:
    table = read(tmp_path, f"{HEADER}a.png,,,,,\nb.png,-1,-1,nan,nan,2\nb.png,1,2,30,20,\n")
    assert table.instances_per_image().tolist() == [0, 1]
    assert table.notes.counts["line without landmarks read as a negative image"] == 2


def test_boxes_and_classes_of_the_file(tmp_path: Path) -> None:
    text = "filename,xmin,ymin,xmax,ymax,class,tip_x,tip_y\na.png,1,2,11,12,bug,3,4\na.png,1,2,11,12,ant,,\n"
    table = read(tmp_path, text)
    assert table.boxes_xywh.tolist() == [[1, 2, 10, 10]] * 2
    assert table.label.tolist() == [2, 1]
    assert table.keypoints is not None
    assert table.keypoints.tolist() == [[[3, 4, 2]], [[0, 0, 0]]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,label\na.png,cat", "no landmark columns; name them <name>_x, <name>_y"),
        ("label,tip_x,tip_y\na,1,2", "no column with image names"),
        (
            f"{HEADER}a.png,1,2,3,4,5",
            r"line 2: visibility 5 of right_eye; use 0 \(not labelled\), 1 \(hidden\) or 2 \(visible\)",
        ),
        (f"{HEADER}a.png,1,2,3,4e999,", "line 2: right_eye y '4e999' is not a finite number"),
        (f"{HEADER}a.png,1,2,3", "line 2: 4 cells, expected 6"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_landmark_with_one_coordinate_is_noted(tmp_path: Path) -> None:
    table = read(tmp_path, f"{HEADER}a.png,1,,30,25,\n")
    assert table.notes.counts["landmark with only one coordinate read as not labelled"] == 1


def test_files_of_all_splits_must_have_the_same_landmarks(tmp_path: Path) -> None:
    read(tmp_path, f"{HEADER}a.png,1,2,30,25,\n", "train.csv")
    read(tmp_path, f"{HEADER}b.png,1,2,30,25,\n", "my_val.csv")
    assert find_csv_landmarks(tmp_path, list_files(tmp_path)) == Detected(
        "CSV landmarks: train.csv (train), my_val.csv (val)"
    )
    assert read_csv_landmarks(tmp_path).split.tolist() == ["train", "val"]
    read(tmp_path, "filename,tip_x,tip_y\nb.png,1,2\n", "my_val.csv")
    with pytest.raises(DataError, match=r"my_val.csv: landmarks tip, but train.csv has left_eye, right_eye"):
        read_csv_landmarks(tmp_path)
