"""CSV as spreadsheets, scripts and people write it; and detection of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.annotations.formats.csv.columns import box_columns, point_columns, size_columns
from detseg.annotations.formats.csv.csv_file import csv_kind, read_csv
from detseg.errors import DataError


def put(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "header", "rows"),
    [
        ("a.png,cat", None, [(1, ["a.png", "cat"])]),
        ("path,label\na.png,cat\n", ["path", "label"], [(2, ["a.png", "cat"])]),
        ("path;label\r\na.png;cat\r\n", ["path", "label"], [(2, ["a.png", "cat"])]),
        ("path\tlabel\na.png\tcat", ["path", "label"], [(2, ["a.png", "cat"])]),
        ('"path", "label"\n"a, b.png", "cat"', ["path", "label"], [(2, ["a, b.png", "cat"])]),
        ("\n\npath,label,,\n\na.png,cat,,\n,,,\n", ["path", "label"], [(5, ["a.png", "cat", "", ""])]),
        (",path,label\n0,a.png,cat", ["", "path", "label"], [(2, ["0", "a.png", "cat"])]),  # pandas' index
        ("path,label", ["path", "label"], []),
        ("x", ["x"], []),
        ("a.png,,,,,", None, [(1, ["a.png", "", "", "", "", ""])]),
    ],
)
def test_rows(tmp_path: Path, text: str, header: list[str] | None, rows: list[tuple[int, list[str]]]) -> None:
    file = read_csv(put(tmp_path, text))
    assert (file.header, file.rows) == (header, rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "list.csv: the file is empty; export it again"),
        (b",,\n\n", "the file is empty"),
        ("filename,label\nä.png,cat\n".encode("latin-1"), "not UTF-8 text .* at byte 15.*save it as UTF-8"),
        ("filename,label\n".encode("utf-16"), "not UTF-8"),
        (b'path,label\na.png,"cat\n', r"list.csv, line 2: not CSV \(.*\); close the quotes"),
        (b"path," + b"x" * 200_000, "list.csv, line 1: not CSV"),
    ],
)
def test_files_that_are_not_a_table(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(put(tmp_path, text))


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    path = put(tmp_path, "")
    with path.open("wb") as file:
        file.truncate(2**30 + 1)  # sparse
    with pytest.raises(DataError, match="larger than 1024 MiB"):
        read_csv(path)


@pytest.mark.parametrize(("cell", "value"), [("1.5", 1.5), ("1e2", 100), ("-3", -3), ("1,5", None), ("nan", None)])
def test_numbers(tmp_path: Path, cell: str, value: float | None) -> None:
    file = read_csv(put(tmp_path, "a,b"))
    if value is not None:
        assert file.number(cell, "xmin", 7) == value
    else:
        with pytest.raises(DataError, match=f"list.csv, line 7: xmin '{cell}' is not a finite number"):
            file.number(cell, "xmin", 7)


def test_a_decimal_comma_with_semicolons_as_separator(tmp_path: Path) -> None:
    assert read_csv(put(tmp_path, "a;b")).number("1,5", "xmin", 1) == 1.5


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", None),
        ("hello world", None),
        ("epoch,loss\n1,0.5\n", None),
        ("cell,0\nnucleus,1\n", None),  # a class list
        ("a.png,1,2,3,4,cat", "boxes"),
        ("a.png,,,,,\nb.png,1,2,3,4,cat", "boxes"),
        ("a.png,1,2,3,4,cat\nb.png,1,2,3,4", None),
        ("file,group\na.png,bench 1\nb.png,bench 2", None),  # a file for --group
        ("a.png,cat\nb.png,dog", "labels"),
        ("a.png,1\nb.png,2", "labels"),
        ("a.png\nb.png", None),
        ("filename,cell_type,xmin,xmax,ymin,ymax\n", "boxes"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax\n", "boxes"),
        ("Image;X1;Y1;X2;Y2;Label", "boxes"),
        ("path,x,y,w,h,label", "boxes"),
        ("img_path,bbox_x,bbox_y,bbox_width,bbox_height", "boxes"),
        ("filename,x_center,y_center,width,height,class", "boxes"),
        ("filename,nose_x,nose_y,tail_x,tail_y", "landmarks"),
        ("filename,x_nose,y_nose", "landmarks"),
        ("filename,xmin,ymin,xmax,ymax,nose_x,nose_y", "landmarks"),
        ("filename,x,y", "landmarks"),
        ("filename,x,label", "labels"),
        ("filename,label", "labels"),
        ("filename,colour,shape", "labels"),
        ("filename,width,height,split", None),
        ("id,breed\n00a1,pug", "labels"),
        ("id,Usage,score\n00a1,Public,1", None),
        ("#filename,file_size,region_shape_attributes", None),
        (b"filename,label\n\xe4.png,cat", "labels"),  # the reader reports the error
        ('filename,label\n"a.png', "labels"),
    ],
)
def test_kind(tmp_path: Path, text: str | bytes, kind: str | None) -> None:
    assert csv_kind(put(tmp_path, text)) == kind


def test_the_kind_is_detected_from_the_beginning(tmp_path: Path) -> None:
    assert csv_kind(put(tmp_path, "filename,label\n" + "a.png,cat\n" * 20_000 + "z" * 10)) == "labels"


@pytest.mark.parametrize(
    ("header", "columns", "form", "size"),
    [
        ("a,b", None, None, None),
        ("ymax,xmax,ymin,xmin", (3, 2, 1, 0), "xyxy", None),
        ("xmin,ymin,xmax,ymax,width,height", (0, 1, 2, 3), "xyxy", (5, 4)),
        ("left,top,right,bottom", (0, 1, 2, 3), "xyxy", None),
        ("bbox_x1,bbox_y1,bbox_x2,bbox_y2", (0, 1, 2, 3), "xyxy", None),
        ("x,y,width,height", (0, 1, 2, 3), "xywh", None),
        ("x,y,w,h,width,height", (0, 1, 2, 3), "xywh", (5, 4)),
        ("X,Y,Width,Height,image_width,image_height", (0, 1, 2, 3), "xywh", (5, 4)),
        ("xmin,ymin,width,height", (0, 1, 2, 3), "xywh", None),
        ("cx,cy,w,h", (0, 1, 2, 3), "cxcywh", None),
    ],
)
def test_box_columns(header: str, columns: object, form: str | None, size: object) -> None:
    cells = header.split(",")
    box = box_columns(cells)
    assert (box and box.columns, box and box.form) == (columns, form)
    assert size_columns(cells) == size


@pytest.mark.parametrize(
    ("header", "points"),
    [
        ("a,b", []),
        ("nose_x,nose_y", [("nose", 0, 1, None)]),
        ("Left Eye_y,Left Eye_v,Left Eye_x", [("Left_Eye", 2, 0, 1)]),
        ("left_eye.x,left_eye.y,left_eye.vis", [("left_eye", 0, 1, 2)]),
        ("x_nose,y_nose,x_tail", [("nose", 0, 1, None)]),
        ("x_min,y_min,x_max,y_max", []),
        ("x,y,w,h", []),
        ("x,y", [("point", 0, 1, None)]),
    ],
)
def test_landmark_columns(header: str, points: list[tuple[str, int, int, int | None]]) -> None:
    columns = point_columns(header.split(","))
    assert [(point.name, point.x, point.y, point.visibility) for point in columns] == points
