"""Renamed, merged and selected classes: of images and of label columns, of two files, and what stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.rename import rename_class_map, rename_classes, select_classes
from detseg.annotations.table import IMAGE_COLUMNS, INSTANCE_COLUMNS
from detseg.classes import ClassMap, LabelField, joined
from detseg.cli import main
from detseg.errors import DataError
from tests.real_exports import cases_rename, sets


def label_names(table: AnnotationTable) -> dict[str, list[str]]:
    return {record.path.name: record.class_names(table.class_map) for record in table}


def folders(root: Path) -> Path:
    for name in ("cat", "kitten", "dog"):
        for number in range(2):
            sets.image(root / name / f"{name}{number}.png")
    return root


def label_columns(root: Path, text: str) -> Path:
    for name in "abc":
        sets.image(root / f"{name}.png")
    sets.put(root / "labels.csv", text)
    return root


def test_class_folders(tmp_path: Path) -> None:
    data = folders(tmp_path)
    table = read(data, rename="kitten=cat")
    assert table.class_map == ClassMap(("cat", "dog"))
    assert label_names(table)["kitten1.png"] == ["cat"]
    assert table.notes.lines() == ["1 x new class name that merges classes: cat: cat (2 images), kitten (2 images)"]
    selected = read(data, rename="kitten=cat", classes="cat")
    assert label_names(selected) == {f"{name}{i}.png": ["cat"] for name in ("cat", "kitten") for i in range(2)}
    assert selected.notes.counts["image of an unselected class left out"] == 2
    assert selected.record.tolist() == [0, 1, 2, 3]
    assert read(data, rename={"cat": "dog", "dog": "cat"}).class_map.names == ("dog", "cat", "kitten")
    with pytest.raises(DataError, match="has no class 'kiten'; it has cat, dog, kitten; did you mean kitten"):
        read(data, rename="kiten=cat")
    with pytest.raises(DataError, match="--class-attribute x is for VIA, CVAT and CSV"):
        read(data, class_attribute="x")


LABELS = "filename,colour,shape,remark\na.png,red,disc,x1\nb.png,crimson,ring,x2\nc.png,blue,disc,x3\n"


@pytest.mark.parametrize("rename", ["crimson=red", "colour=crimson=red", {"colour=crimson": "colour=red"}])
def test_label_columns(tmp_path: Path, rename: Any) -> None:
    data = label_columns(tmp_path, LABELS)
    table = read(data, rename=rename, classes="colour,shape")
    assert [field.class_map.names for field in table.label_fields] == [("blue", "red"), ("disc", "ring")]
    assert table.class_map == joined(table.label_fields)
    assert label_names(table)["b.png"] == ["colour=red", "shape=ring"]
    assert "colour=red: colour=crimson (1 image), colour=red (1 image)" in "\n".join(table.notes.lines())
    assert label_names(read(data, rename=rename, classes="colour=red,shape")) == {
        "a.png": ["colour=red", "shape=disc"],
        "b.png": ["colour=red", "shape=ring"],
        "c.png": ["shape=disc"],
    }


def test_names_with_commas_of_folders_and_columns(tmp_path: Path) -> None:
    for name in ("bolt, M6", "nut"):
        sets.image(tmp_path / "folders" / name / f"{name[0]}.png")
    assert read(tmp_path / "folders", classes="bolt, M6").class_map.names == ("bolt, M6",)
    assert read(tmp_path / "folders", rename="bolt, M6=bolt", classes="bolt").class_map.names == ("bolt",)
    data = label_columns(tmp_path / "columns", LABELS.replace("crimson", '"red, dark"'))
    for text in ("shape,colour=red, dark", 'shape,"colour=red, dark"'):
        table = read(data, classes=text)
        assert [field.class_map.names for field in table.label_fields] == [("disc", "ring"), ("red, dark",)]
    assert "colour=crimson" in read(data, rename="red, dark=crimson").class_map.names


def test_one_label_column(tmp_path: Path) -> None:
    data = label_columns(tmp_path, LABELS)
    table = read(data, class_attribute="colour", rename="crimson=red", classes="red")
    assert label_names(table) == {"a.png": ["red"], "b.png": ["red"]}
    with pytest.raises(DataError, match=r"no such column .*; there are colour, shape, remark"):
        read(data, class_attribute="filename")


def test_columns_that_cannot_be_classes_need_not_be_read(tmp_path: Path) -> None:
    """A column with a different text in each of many images is an error unless it is not selected."""
    rows = [f"{i}.png,{'cat' if i % 2 else 'kitten'},remark {i}" for i in range(24)]
    for i in range(24):
        sets.image(tmp_path / f"{i}.png")
    sets.put(tmp_path / "labels.csv", "\n".join(["filename,kind,remark", *rows]) + "\n")
    with pytest.raises(DataError, match="does not contain classes; select the label columns with --classes"):
        read(tmp_path, rename="kitten=cat")
    assert read(tmp_path, rename="kitten=tom", classes="kind").class_map.names == ("cat", "tom")
    sets.put(tmp_path / "labels.csv", "\n".join(["filename,kind,remark,size", *(f"{row},big" for row in rows)]) + "\n")
    two = read(tmp_path, rename="kitten=tom", classes="kind,size")
    assert [field.class_map.names for field in two.label_fields] == [("cat", "tom"), ("big",)]


def test_classes_with_other_keypoints_need_not_be_read(tmp_path: Path) -> None:
    box = {"bbox": [10, 10, 20, 20], "area": 400}
    sets.coco(tmp_path, {"a.png": [{**box, "keypoints": [15, 15, 2]}, {**box, "category_id": 2}]})
    file = tmp_path / "annotations.json"
    value = json.loads(file.read_text())
    value["categories"][0]["keypoints"], value["categories"][1]["keypoints"] = ["nose"], ["tail"]
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="have different keypoints; select classes"):
        read(tmp_path, rename="bolt=cat")
    table = read(tmp_path, rename="bolt=cat", classes="cat")
    assert table.class_map.names == ("cat",)
    assert table.has_keypoints


def test_everything_else_stays(tmp_path: Path) -> None:
    cases_rename.coco(tmp_path)
    before = read(tmp_path)
    after = read(tmp_path, rename="object=balloon")
    assert after.class_map == ClassMap(("balloon", "M6", "nut"), before.class_map.category_ids)
    for name in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    assert after.source == before.source
    assert not before.notes
    assert not after.notes


def test_selection_equals_that_of_the_reader(tmp_path: Path) -> None:
    """Control: without new names the readers select; the table must select the same."""
    for name, write in cases_rename.WRITERS.items():
        write(tmp_path / name)
        by_reader, whole = read(tmp_path / name, classes=["nut", "object"]), read(tmp_path / name)
        selected = select_classes(whole, ["nut", "object"])
        assert selected.class_map == by_reader.class_map, name
        for column in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS):
            np.testing.assert_array_equal(getattr(selected, column), getattr(by_reader, column), err_msg=name)
        assert len(selected.label) < len(whole.label)
        assert sum(selected.notes.counts.values()) == sum(by_reader.notes.counts.values())


def test_two_files_whose_class_has_two_names(tmp_path: Path) -> None:
    """A name needs to be in one of them only; a merged class has one id in both."""
    cases_rename.coco(tmp_path / "train")
    cases_rename.coco(tmp_path / "val")
    file = tmp_path / "val" / "annotations.json"
    value = json.loads(file.read_text())
    value["categories"][0]["name"] = "balloon"
    file.write_text(json.dumps(value))
    with pytest.raises(DataError, match="has the class 'balloon' as category 1"):
        read(tmp_path / "train", val_annotations=tmp_path / "val")
    for options in ({"rename": "object=balloon"}, {"rename": "object=balloon", "classes": ["balloon", "M6", "nut"]}):
        table = read(tmp_path / "train", val_annotations=tmp_path / "val", **options)
        assert table.class_map == ClassMap(("balloon", "M6", "nut"))
        assert len(table) == 4
    merged = read(tmp_path / "train", val_annotations=tmp_path / "val", rename="object=bolt,balloon=bolt,nut=bolt")
    assert merged.class_map == ClassMap(("bolt", "M6"), (1, 2))


def test_without_tables_to_change() -> None:
    assert rename_classes([], {"a": "b"}) == []


def test_classes_of_a_model() -> None:
    class_map = ClassMap(("object", "nut"), (3, 7))
    assert rename_class_map(class_map, (), "object=bolt", "run") == ClassMap(("bolt", "nut"), (3, 7))
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("shape", ClassMap(("disc",))))
    assert rename_class_map(joined(fields), fields, "red=crimson", "run").names == (
        "colour=crimson", "colour=blue", "shape=disc",
    )  # fmt: skip
    with pytest.raises(DataError, match="two classes of run would have the name 'nut'; predictions are not merged"):
        rename_class_map(class_map, (), "object=nut", "run")
    with pytest.raises(DataError, match="run has no class 'x'; it has object, nut"):
        rename_class_map(class_map, (), "x=y", "run")


def test_a_class_that_is_selected_twice(tmp_path: Path) -> None:
    cases_rename.yolo(tmp_path)
    with pytest.raises(
        DataError, match=r"--classes lists 'nut' twice; list it once \(--rename OLD=nut merges classes\)"
    ):
        read(tmp_path, classes="nut,object,nut")


def test_numbered_classes_say_how_they_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases_rename.yolo(tmp_path / "data")
    (tmp_path / "data/data.yaml").write_text("train: images\n")
    assert main(["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    assert "(--rename 'class 0=NAME' names one)" in capsys.readouterr().out
    assert read(tmp_path / "data", rename="class 0=bolt").class_map.names == ("bolt", "class 1", "class 2")


@pytest.mark.parametrize("write", cases_rename.WRITERS.values(), ids=cases_rename.WRITERS)
def test_merged_labels_are_those_of_the_new_class(write: Any, tmp_path: Path) -> None:
    """Control: names alone, without joined labels, would be two classes of one name, which a class map refuses."""
    write(tmp_path)
    before, after = read(tmp_path), read(tmp_path, rename="object=bolt,M6=bolt")
    old = [before.class_map.name_of(int(label)) for label in before.label]
    new = [after.class_map.name_of(int(label)) for label in after.label]
    assert new == [name if name == "nut" else "bolt" for name in old]
    with pytest.raises(DataError, match="appears twice"):
        replace(before.class_map, names=tuple(name if name == "nut" else "bolt" for name in before.class_map.names))
