"""Cases specific to CSV files of boxes; the common ones are in test_shapes.py."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from detseg.annotations.formats.csv.boxes import find_csv_boxes, read_csv_boxes
from detseg.annotations.formats.format import Detected
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError


def read(folder: Path, text: str, name: str = "list.csv", **options: str) -> AnnotationTable:
    for image in "abc":
        Image.new("RGB", (30, 20)).save(folder / f"{image}.png")
    (folder / name).write_text(text, encoding="utf-8")
    return read_csv_boxes(folder / name, **options)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("filename,xmin,ymin,xmax,ymax,class", []),
        ("a.png,,,,,", []),  # keras-retinanet: a negative image
        ("a.png,2,3,12,9,cell", [[2, 3, 10, 6]]),
        ("filename,cell_type,xmin,xmax,ymin,ymax\na.png,WBC,2,12,3,9", [[2, 3, 10, 6]]),
        ("IMAGE;X1;Y1;X2;Y2;LABEL\na.png;2,5;3;12;9;cell", [[2.5, 3, 9.5, 6]]),
        ("filename,x,y,width,height,class\na.png,2,3,10,6,cell", [[2, 3, 10, 6]]),
        ("filename,width,height,class,x,y,w,h\na.png,30,20,cell,2,3,10,6", [[2, 3, 10, 6]]),
        ("filename,x_center,y_center,width,height,class\na.png,7,6,10,6,cell", [[2, 3, 10, 6]]),
        (",filename,xmin,ymin,xmax,ymax,class\n0,a.png,2,3,12,9,cell", [[2, 3, 10, 6]]),
    ],
)
def test_column_layouts(tmp_path: Path, text: str, boxes: list[list[float]]) -> None:
    table = read(tmp_path, text)
    assert table.boxes_xywh.tolist() == boxes
    assert {kind for kind in table.notes.counts if "without annotation" not in kind} == set()


def test_rows_of_one_image_need_not_be_adjacent(tmp_path: Path) -> None:
    table = read(tmp_path, "a.png,0,0,2,2,x\nb.png,,,,,\na.png,1,1,3,3,y\nc.png,1,1,3,3,y\n")
    assert table.media.tolist() == ["a.png", "b.png", "c.png"]
    assert table.instances_per_image().tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,xmin,ymin,xmax\na.png,1,2,3", "no box columns in the header"),
        ("xmin,ymin,xmax,ymax,class\n1,2,3,4,cell", "no column with image names; call it filename"),
        ("a.png,1,2,3,4,cell\nb.png,1,2,3", "list.csv, line 2: 4 cells, expected 6"),
        ("filename,xmin,ymin,xmax,ymax,class\na, b.png,1,2,3,4,cell", "line 2: 7 cells, expected 6; .*quotes"),
        ("filename,xmin,ymin,xmax,ymax,class\n,1,2,3,4,cell", "line 2: the image name is empty"),
        ("filename,xmin,ymin,xmax,ymax,class\na.png,1,2,,4,cell", "line 2: xmax '' is not a finite number"),
        ("filename,xmin,ymin,xmax,ymax,class\na.png,,,,,cell", "line 2: class 'cell' without a box"),
        ("a.png,1,2,inf,4,cell", "line 1: x2 'inf' is not a finite number"),
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,30,20.5,c,1,2,3,4",
            "30 x 20.5 is not in whole pixels",
        ),
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,30,20,c,1,2,3,4\na.png,31,20,c,1,2,3,4",
            "line 3: a.png is 31 x 20 .* has a different size in list.csv, line 2",
        ),
        (
            "filename,xmin,ymin,xmax,ymax,class\n" + "a.png,20,15,5,3,c\n" * 6,
            "6 of 6 boxes.*name the columns x, y, w.*smaller corner first",
        ),
        ("a.png,1,2,3,4,c\n./a.png,1,2,3,4,c", "a.png is annotated in list.csv, line 1 and in list.csv, line 2"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_split_column(tmp_path: Path) -> None:
    text = "filename,xmin,ymin,xmax,ymax,class,split\na.png,1,2,3,4,c,Training\nb.png,,,,,,valid\nc.png,,,,,,fold1\n"
    table = read(tmp_path, text)
    assert table.split.tolist() == ["train", "val", ""]
    assert "split ignored: not train, val or test" in table.notes.counts
    assert read(tmp_path, text, split="test").split.tolist() == ["test"] * 3


def test_files_without_a_class_or_with_more_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "filename,xmin,ymin,xmax,ymax,score\na.png,1,2,3,4,0.5")
    assert table.class_map.names == ("object",)
    assert table.notes.lines()[0] == "1 x column ignored: score (list.csv)"
    assert "every instance has the class 'object'" in table.notes.lines()[1]


def test_a_class_list_defines_order_and_ids(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("z,0\na,1\nunused,4\n")
    table = read(tmp_path, "a.png,1,2,3,4,a\na.png,1,2,3,4,z")
    assert (table.class_map.names, table.class_map.category_ids) == (("z", "a", "unused"), (0, 1, 4))
    assert table.label.tolist() == [2, 1]
    with pytest.raises(DataError, match=r"line 1 \(|class 'b' is not in the class list"):
        read(tmp_path, "a.png,1,2,3,4,b")
    for text, message in (("z,a\n", "expected class name and number"), ("z,0\ny,0\n", "is used for two classes")):
        (tmp_path / "classes.csv").write_text("z,0\n" + text)
        with pytest.raises(DataError, match=f"classes.csv, line .*{message}"):
            read(tmp_path, "a.png,1,2,3,4,a")


def test_the_same_image_in_two_splits_is_two_records(tmp_path: Path) -> None:
    read(tmp_path, "a.png,1,2,3,4,c", "train.csv")
    read(tmp_path, "a.png,1,2,3,4,c\nb.png,,,,,", "val.csv")
    assert find_csv_boxes(tmp_path, list_files(tmp_path)) == Detected("CSV boxes: train.csv (train), val.csv (val)")
    table = read_csv_boxes(tmp_path)
    assert (table.media.tolist(), table.split.tolist()) == (["a.png", "a.png", "b.png"], ["train", "val", "val"])


def test_find(tmp_path: Path) -> None:
    assert find_csv_boxes(tmp_path, []) is None
    (tmp_path / "labels.csv").write_text("filename,label\na.png,cat\n")
    assert find_csv_boxes(tmp_path, list_files(tmp_path)) is None


def test_bccd(shared_data: Path) -> None:
    folder = shared_data / "bccd"
    table = read_csv_boxes(folder / "test.csv", folder / "BCCD" / "JPEGImages")
    names = Counter(table.class_map.name_of(int(label)) for label in table.label)
    assert len(table) == 364
    assert names == {"RBC": 4153, "WBC": 372, "Platelets": 361}  # 2 RBC without area are dropped
    assert table.notes.counts["box dropped: it has no width"] == 2
    assert table.boxes_xywh[0].tolist() == [260, 177, 231, 199]


def test_vott(shared_data: Path) -> None:
    table = read_csv_boxes(shared_data / "datumaro_assets" / "assets" / "vott_csv_dataset" / "dataset")
    assert table.media.tolist() == ["img0004.jpg"]
    assert table.split.tolist() == ["train"]
    assert table.lost.left_out == ("img0003.jpg", "img0001.jpg", "img0002.jpg")
    assert table.boxes_xywh.tolist() == [[1, 2, 1, 2]]  # the others are outside these 5 x 5 images
    assert table.notes.counts["box dropped: it is outside the image"] == 4
