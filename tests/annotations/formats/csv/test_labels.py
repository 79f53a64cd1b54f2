"""CSV files of class labels: columns, splits, what is left out or rejected, and round trips."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.csv.labels import find_csv_labels, read_csv_labels
from detseg.annotations.formats.csv.write_labels import write_csv_labels
from detseg.annotations.formats.format import Detected
from detseg.annotations.listing import list_files
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.errors import DataError

PNG = cv2.imencode(".png", np.zeros((6, 9, 3), np.uint8))[1].tobytes()


def write(root: Path, files: dict[str, str | bytes], images: str = "") -> Path:
    """Write files of a data folder, and small images (names separated by ``|``)."""
    for name, content in {**files, **dict.fromkeys(filter(None, images.split("|")), PNG)}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def names(table: AnnotationTable) -> dict[str, list[str]]:
    return {Path(str(record.path)).name: record.class_names(table.class_map) for record in table}


TWO_COLUMNS = "filename,colour,shape\na.png,red,x\nb.png,blue,\nc.png,,y\n"


def test_several_columns(tmp_path: Path) -> None:
    table = read_csv_labels(write(tmp_path, {"labels.csv": TWO_COLUMNS}, "a.png|b.png|c.png"))
    colour, shape = LabelField("colour", ClassMap(("blue", "red"))), LabelField("shape", ClassMap(("x", "y")))
    assert table.label_fields == (colour, shape)
    assert table.class_index.tolist() == [[1, 0], [0, -1], [-1, 1]]
    assert names(table) == {"a.png": ["colour=red", "shape=x"], "b.png": ["colour=blue"], "c.png": ["shape=y"]}
    assert table[0].stored_hw == (6, 9)
    assert not table.notes
    assert find_csv_labels(tmp_path, list_files(tmp_path)) == Detected("CSV labels: labels.csv")


@pytest.mark.parametrize(
    "text",
    [
        "a.png,cat\nb.png,dog\n",
        "path,label\na.png,cat\nb.png,dog\n",
        "\ufeffImage;Species\r\na.png;cat\r\nb.png;dog\r\n",
        'file\tkind of animal\n"a.png"\tcat\nb.png\tdog\n\n',
        "filename,label,width,height\na.png,cat,9,6\nb.png,dog,9,6\n",
    ],
)
def test_one_column_is_one_field(text: str, tmp_path: Path) -> None:
    table = read_csv_labels(write(tmp_path, {"labels.csv": text}, "a.png|b.png"))
    assert (table.label_fields, table.class_map.names) == ((), ("cat", "dog"))
    assert table.class_index.tolist() == [[0], [1]]
    assert all("column ignored" in line for line in table.notes.lines())


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["1", "1"], ("0", "1")),  # one of several columns, so it means yes or no
        (["0", ""], ("0", "1")),
        (["1.0", "0.0"], ("0", "1")),
        (["2", "10"], ("2", "10")),
        (["2.0", "nan"], ("2",)),
        (["10", "x"], ("10", "x")),
        (["größe 1", "a b"], ("a b", "größe 1")),
        (["None", "NA"], ("NA", "None")),
    ],
)
def test_classes_are_the_cell_texts(cells: list[str], classes: tuple[str, ...], tmp_path: Path) -> None:
    text = "filename,kind,other\n" + "".join(f"{i}.png,{cell},x\n" for i, cell in enumerate(cells))
    table = read_csv_labels(write(tmp_path, {"labels.csv": text}, "0.png|1.png"))
    assert table.label_fields[0].class_map.names == classes


def test_splits_by_column_by_file_and_by_folder(tmp_path: Path) -> None:
    text = "path,split,colour\na.png,train,red\nb.png,VALID,blue\nc.png,,red\nd.png,spare,red\n"
    column = write(tmp_path / "1", {"labels.csv": text}, "a.png|b.png|c.png|d.png")
    table = read_csv_labels(column)
    assert table.split.tolist() == ["train", "val", "", ""]
    assert "labels.csv, line 5 spare" in table.notes.lines()[0]
    assert read_csv_labels(column, split="test").split.tolist() == ["test"] * 4
    files: dict[str, str | bytes] = {"train.csv": "path,kind\na.png,x\n", "val.csv": "path,sort\na.png,y\n"}
    table = read_csv_labels(write(tmp_path / "2", files, "train/a.png|val/a.png"))
    assert table.split.tolist() == ["train", "val"]
    assert table.media.tolist() == ["train/a.png", "val/a.png"]
    assert (table.class_map.names, table.label_fields) == (("x", "y"), ())


def test_columns_that_only_some_files_have(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"train.csv": "path,a,b\n1.png,x,u\n", "val.csv": "path,b,c\n2.png,v,m\n"}
    table = read_csv_labels(write(tmp_path, files, "1.png|2.png"))
    assert [field.name for field in table.label_fields] == ["a", "b", "c"]
    assert names(table) == {"1.png": ["a=x", "b=u"], "2.png": ["b=v", "c=m"]}


def test_roboflow_classes(shared_data: Path) -> None:
    root = shared_data / "datumaro_assets/assets/roboflow_dataset/multiclass"
    table = read_csv_labels(root)
    assert [(field.name, field.class_map.names) for field in table.label_fields] == [
        ("label_0", ("0", "1")),
        ("label_1", ("0", "1")),
    ]
    assert table.class_index.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert table.split.tolist() == ["train", "train", "val"]
    assert table.media.tolist() == ["train/train_001.jpg", "train/train_002.jpg", "val/val_001.jpg"]
    line = find_csv_labels(root, list_files(root))
    assert line == Detected("CSV labels: train/_classes.csv (train), val/_classes.csv (val)")


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    text = TWO_COLUMNS + "d.png,,\na.png,red,x\ne.png,NaN,y\n"
    table = read_csv_labels(write(tmp_path, {"labels.csv": text}, "a.png|b.png|c.png|d.png|e.png|loose.png"))
    assert len(table) == 4
    assert table.notes.lines() == [
        "1 x cell nan read as no label: labels.csv, line 7, colour",
        "1 x image without annotation left out: loose.png",
        "1 x image without a label left out: labels.csv, line 5 d.png",
        "1 x duplicate line left out: labels.csv, line 6",
    ]


@pytest.mark.parametrize(
    ("classes", "fields", "expected"),
    [
        (["shape", "colour"], ["shape", "colour"], {"a.png": ["shape=x", "colour=red"]}),
        (["colour=red", "shape"], ["colour", "shape"], {"a.png": ["colour=red", "shape=x"], "c.png": ["shape=y"]}),
        (["shape=y", "shape=x"], [], {"a.png": ["x"], "c.png": ["y"]}),
        (["colour"], [], {"a.png": ["red"], "b.png": ["blue"]}),
    ],
)
def test_columns_and_classes_are_selected(
    classes: list[str], fields: list[str], expected: dict[str, list[str]], tmp_path: Path
) -> None:
    table = read_csv_labels(write(tmp_path, {"labels.csv": TWO_COLUMNS}, "a.png|b.png|c.png"), classes=classes)
    assert [field.name for field in table.label_fields] == fields
    labels = names(table)
    assert {name: labels[name] for name in expected} == expected
    if classes[0] == "shape=y":
        assert table.class_map.names == ("y", "x")
    assert all("left out" in line for line in table.notes.lines())


def test_classes_of_one_column(tmp_path: Path) -> None:
    root = write(tmp_path, {"labels.csv": "a.png,cat\nb.png,dog\nc.png,cow\n"}, "a.png|b.png|c.png")
    table = read_csv_labels(root, classes=["dog", "cat"])
    assert (table.class_map.names, table.class_index.tolist()) == (("dog", "cat"), [[1], [0]])
    assert len(table.notes.lines()) == 2
    with pytest.raises(DataError, match="no class ox in column label; there are cat, cow, dog"):
        read_csv_labels(root, classes=["ox"])


MANY = "path,colour,note\n" + "".join(f"{i}.png,red,remark {i}\n" for i in range(20))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (b"", {}, "empty"),
        (b"filename,colour,shape\n", {}, r"labels.csv: no labels"),
        (b"\xff\xfe\x00", {}, "not UTF-8"),
        (b'filename,colour\na.png,"re', {}, "not CSV"),
        (b"filename,colour,shape\na.png,red\n", {}, r"labels\.csv, line 2: 2 cells, expected 3"),
        (b"filename,colour\na.png,red,dark\n", {}, r"line 2: 3 cells, expected 2"),
        (b"a.png,red,x\n", {}, r"3 cells, expected 2 \(path and label\); several label columns need a header"),
        (b"filename,colour\n,red\n", {}, "line 2: the image name is empty"),
        (b"filename,split\na.png,train\n", {}, "at least one label column are required; the header is filename, split"),
        (b"colour,shape\nred,x\n", {}, "an image column called filename"),
        (b"filename,colour,colour\na.png,red,red\n", {}, "two columns are called colour"),
        (
            b"filename,colour\na.png,red\na.png,blue\n",
            {},
            r"line 3: a\.png has different labels in labels\.csv, line 2",
        ),
        (b"filename,colour\na.png,red\nz.png,blue\n", {}, r"1 of 2 images are not in .*: z\.png; add the files"),
        (b"filename,colour\n../../etc/passwd.png,red\n", {}, r"1 of 1 images are not in"),
        (b"filename,age,sex\na.png,3.7,f\nb.png,2,m\n", {}, r"line 2: age is 3\.7, a measured number, not a class"),
        (b"filename,age,sex\na.png,,f\nb.png,,m\n", {}, "no label in column age; fill it, or select the other columns"),
        (MANY.encode(), {}, r"line 2: column note has a different text in each of 20 images"),
        (
            TWO_COLUMNS.encode(),
            {"classes": ["size"]},
            "'size' is not a label column, or is listed twice; columns are colour, shape",
        ),
        (
            TWO_COLUMNS.encode(),
            {"classes": ["colour", "colour=red"]},
            "'colour=red' is not a label column, or is listed twice",
        ),
        (TWO_COLUMNS.encode(), {"classes": ["colour=pink"]}, "no class pink in column colour; there are blue, red"),
    ],
)
def test_invalid_files_are_rejected(text: bytes, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    images = "|".join(f"{name}.png" for name in ["a", "b", "c", *range(20)])
    write(tmp_path, {"labels.csv": text}, images)
    with pytest.raises(DataError, match=message):
        read_csv_labels(tmp_path / "labels.csv", **options)
    find_csv_labels(tmp_path, list_files(tmp_path))  # find never fails


def test_a_column_of_remarks_can_be_ignored(tmp_path: Path) -> None:
    root = write(tmp_path, {"labels.csv": MANY}, "|".join(f"{i}.png" for i in range(20)))
    assert read_csv_labels(root, classes=["colour"]).class_map.names == ("red",)


def test_images_in_other_folders_and_paths_of_other_machines(tmp_path: Path) -> None:
    text = "path,kind,sort\nC:\\data\\ein bär.png,x,u\n/home/me/日本.png,y,v\n"
    root = write(tmp_path / "csv", {"labels.csv": text})
    write(tmp_path / "far/off", {}, "ein bär.png|deep/日本.png")
    table = read_csv_labels(root, tmp_path / "far/off")
    assert table.media.tolist() == ["ein bär.png", "deep/日本.png"]
    assert "found by its file name" in table.notes.lines()[0]
    with pytest.raises(DataError, match="2 of 2 images are not in"):
        read_csv_labels(root)


def test_folders_without_labels(tmp_path: Path) -> None:
    assert find_csv_labels(tmp_path, []) is None
    write(tmp_path, {"boxes.csv": "filename,xmin,ymin,xmax,ymax,class\na.png,1,2,3,4,x\n"}, "a.png")
    assert find_csv_labels(tmp_path, list_files(tmp_path)) is None
    with pytest.raises(DataError, match=r"no \.csv file of this format"):
        read_csv_labels(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_csv_labels(tmp_path / "nothing")


def test_an_image_rotated_by_exif(shared_data: Path, tmp_path: Path) -> None:
    image = sorted((shared_data / "exif_orientation").rglob("*_6.jpg"))[0]
    root = write(tmp_path, {"labels.csv": f"filename,a,b\n{image.name},x,y\n", image.name: image.read_bytes()})
    (record,) = read_csv_labels(root)
    assert record.orientation == 6
    assert record.size_hw == record.stored_hw[::-1]


def write_and_read(table: AnnotationTable, folder: Path) -> AnnotationTable:
    """Write the table and its images to ``folder``, and read it again."""
    written = write_csv_labels(table, folder)
    for image, record in zip(written.images, table, strict=True):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        os.link(record.path, folder / image)
    return read_csv_labels(folder)


@pytest.mark.parametrize(
    "text",
    [
        TWO_COLUMNS,
        "filename,split,label\nin/a.png,train,cat\nb.png,val,dog\nc.png,,cat\n",
        'filename,colour,image\na.png,"red, dark","x ""y"""\nb.png,blau;grün,\n',
        "filename,a,b\na.png,0,1\nb.png,1,0\nc.png,0,1\n",
    ],
)
def test_round_trip(text: str, tmp_path: Path) -> None:
    table = read_csv_labels(write(tmp_path / "in", {"labels.csv": text}, "a.png|in/a.png|b.png|c.png"))
    again = write_and_read(table, tmp_path / "out")
    assert names(again) == names(table)
    assert (again.label_fields, again.class_map) == (table.label_fields, table.class_map)
    assert (again.split == table.split).all()
    assert not write_csv_labels(table, tmp_path / "more").notes


def test_what_cannot_be_written(tmp_path: Path) -> None:
    builder = TableBuilder(ClassMap(("b", "a", "c")), tmp_path, source="s")
    builder.add_image("a.png", (6, 9), class_index=1, group="g")
    builder.add_instance((0, 0, 2, 2), 1)
    table = builder.build()
    assert write_csv_labels(table, tmp_path / "out").notes.lines() == [
        "1 x objects of an image not written: a.png",
        "1 x group of an image not written: a.png",
        "2 x class without an image not written: b; c",
        "1 x order of the classes not written: b, a, c",
    ]
    with pytest.raises(DataError, match="s: its images have no class labels"):
        write_csv_labels(replace(table, class_index=np.array([[-1]])), tmp_path)
    with pytest.raises(DataError, match="is not a separate file"):
        write_csv_labels(replace(table, frame=np.array([3], np.int32)), tmp_path)
    fields = (LabelField("split", ClassMap(("x", "y"))), LabelField("shape", ClassMap(("x", "y"))))
    several = replace(table, class_map=joined(fields), label_fields=fields, class_index=np.array([[0, 1]]))
    with pytest.raises(DataError, match="label fields split, shape: one has a reserved column name, such as split"):
        write_csv_labels(several, tmp_path)


def test_many_rows(tmp_path: Path) -> None:
    text = "filename," + ",".join(f"c{i}" for i in range(20)) + "\n"
    text += "".join(f"{i}.png," + ",".join(str((i >> bit) & 1) for bit in range(20)) + "\n" for i in range(500))
    table = read_csv_labels(write(tmp_path, {"labels.csv": text}, "|".join(f"{i}.png" for i in range(500))))
    assert table.class_index.shape == (500, 20)
    assert table.class_index[5, :3].tolist() == [1, 0, 1]
