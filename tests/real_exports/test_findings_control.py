"""Controls of the findings: simpler rules are wrong on the same sets, sets without the mistake have no finding, and the
remedy of a message removes the finding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read, split
from detseg.annotations.builder import TableBuilder
from detseg.annotations.obstacles import no_training_instances, nothing_to_learn
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.doctor import inspect_table
from detseg.doctor.class_names import inspect_classes
from detseg.errors import DataError
from detseg.training.task_choice import pick_task
from tests.real_exports import any_format, sets
from tests.real_exports.cases_names import BOLTS, CAFE, COMBINED, IGNORED, TWO_CASES
from tests.real_exports.cases_suspicious_objects import TWICE, flipped_boxes, tiny_areas


def table_of(names: list[str], counts: list[int]) -> AnnotationTable:
    builder = TableBuilder(ClassMap.from_names(names), "/nowhere", source="test data")
    builder.add_image("a.jpg", (100, 100))
    for label, count in enumerate(counts, start=1):
        for number in range(count):
            builder.add_instance([number, label, 5, 5], label)
    return builder.build()


def checks(table: AnnotationTable) -> list[str]:
    return [finding.kind for finding in inspect_table(table)]


@pytest.mark.parametrize(
    "names",
    [("Bolt", "bolt"), ("bolt", "bolt\u200b"), (CAFE, COMBINED), ("hex bolt", "hexbolt"), ("Straße", "STRASSE")],
)
def test_nearly_equal_names(names: tuple[str, str]) -> None:
    (finding,) = inspect_classes(table_of(list(names), [1, 2]))
    assert finding.kind == "nearly equal class names"
    assert len({name.strip() for name in names}) == 2, "control: blanks at the ends alone do not find it"


@pytest.mark.parametrize("names", [("bolt", "bolts"), ("a", "b"), ("left", "right"), ("o", "ö")])
def test_other_names_are_not_nearly_equal(names: tuple[str, str]) -> None:
    assert inspect_classes(table_of(list(names), [1, 2])) == []


@pytest.mark.parametrize(
    "name", ["background", "_background_", "__background__", "__ignore__", "Ignore", "void", "unlabeled"]
)
@pytest.mark.parametrize("count", [0, 2])
def test_names_that_are_usually_no_class(name: str, count: int) -> None:
    (finding,) = inspect_classes(table_of([name, "bolt"], [count, 1]))
    assert finding.kind == "background as a class"
    assert finding.message.endswith("pass --classes bolt")
    assert inspect_classes(table_of(["avoid", "bolt"], [count or 1, 1])) == []


def test_background_of_whole_images_is_a_class(tmp_path: Path) -> None:
    for name in ("background/a.jpg", "bolt/b.jpg", "void/c.jpg"):
        sets.image(tmp_path / name)
    assert [finding.names for finding in inspect_classes(read(tmp_path))] == [("void",)]


@pytest.mark.parametrize(
    ("used", "unused", "is_finding"),
    [(1, 1, True), (1, 5, True), (10, 6, False), (70, 10, True), (48, 32, False), (3, 0, False), (0, 3, False)],
)
def test_unused_classes_are_a_finding_unless_the_list_is_of_more_data(used: int, unused: int, is_finding: bool) -> None:
    names = [f"class {number}" for number in range(used + unused)]
    findings = inspect_classes(table_of(names, [1] * used + [0] * unused))
    assert [finding.kind for finding in findings] == ["class without instances"] * unused * is_finding


def test_selected_classes_remove_the_finding(tmp_path: Path) -> None:
    any_format.yolo(tmp_path, IGNORED, ["__ignore__", "bolt", "nut"])
    assert checks(read(tmp_path)) == ["background as a class"]
    assert checks(read(tmp_path, classes=["bolt", "nut"])) == []


@pytest.mark.parametrize("key", ["area", "bbox"])
def test_a_number_that_is_removed_is_computed(key: str, tmp_path: Path) -> None:
    (tiny_areas if key == "area" else flipped_boxes)(tmp_path)
    wrong = "area far smaller than the box" if key == "area" else "box and outline disagree"
    assert checks(read(tmp_path)) == [wrong, wrong, "class without instances"]
    file = tmp_path / "annotations.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    for annotation in value["annotations"]:
        del annotation[key]
    file.write_text(json.dumps(value), encoding="utf-8")
    assert checks(read(tmp_path)) == ["class without instances"]


def test_control_areas_of_thin_objects_are_right() -> None:
    """The share of the box alone would report the area of a diagonal line."""
    builder = TableBuilder(ClassMap.from_names(["crack"]), "/nowhere", source="test data")
    builder.add_image("a.jpg", (200, 200))
    ring = np.array([[10.0, 10.0], [12.0, 10.0], [190.0, 190.0], [188.0, 190.0]])
    builder.add_instance(None, 1, segmentation=[ring])
    table = builder.build()
    assert table.area[0] < 180 * 180 / 20
    assert checks(table) == []


def test_control_outlines_that_leave_the_image_agree_with_their_clipped_boxes() -> None:
    builder = TableBuilder(ClassMap.from_names(["bolt"]), "/nowhere", source="test data")
    builder.add_image("a.jpg", (100, 100))
    builder.add_instance([80, 10, 60, 20], 1, segmentation=[np.array([[80.0, 10], [140, 10], [140, 30], [80, 30]])])
    assert checks(builder.build()) == []


def test_control_equal_boxes_of_two_classes_or_images_are_no_repetition(tmp_path: Path) -> None:
    any_format.voc(tmp_path, {"a.jpg": TWICE["b.jpg"], "b.jpg": TWICE["b.jpg"]}, [])
    assert checks(read(tmp_path)) == []


@pytest.mark.parametrize("format", [*any_format.FORMATS, "crowds", "folders"])
def test_nothing_to_learn_is_an_error_with_the_message_of_train(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    if format == "crowds":
        sets.coco(data, {name: [{"bbox": [1, 2, 30, 20], "iscrowd": 1}] for name in ("a.jpg", "b.jpg")})
    elif format == "folders":
        sets.image(data / "bolt" / "a.jpg")
        sets.image(data / "bolt" / "b.jpg")
    else:
        any_format.FORMATS[format](data, {"a.jpg": [], "b.jpg": []}, ["bolt"])
    options = ["--format", "folders"] if format == "folders" else []
    table = read(data, format=options[1] if options else None)
    with pytest.raises(DataError) as refused:
        pick_task(None, None, table)
    assert main(["inspect", str(data), "--output", str(tmp_path / "out"), "--json", *options]) == 1
    printed = capsys.readouterr()
    assert str(refused.value) == nothing_to_learn(table)
    assert printed.err == f"detseg inspect: {refused.value}\n"
    summary = json.loads(printed.out)
    assert [finding["kind"] for finding in summary["findings"] if finding["severity"] == "error"] == [
        "nothing to learn"
    ]


def test_other_findings_are_no_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    any_format.voc(tmp_path / "data", TWO_CASES, [])
    assert main(["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    assert "warning: nearly equal class names" in capsys.readouterr().out


def test_a_training_split_without_objects_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole set has objects, but none that is trained on."""
    any_format.yolo(tmp_path / "data", {"a.jpg": [], **BOLTS}, ["bolt"])
    sets.put(tmp_path / "data" / "data.yaml", "train: train.txt\nval: val.txt\nnames: [bolt]\n")
    sets.image(tmp_path / "data/images/c.jpg")
    sets.put(tmp_path / "data/labels/c.txt", "")
    sets.put(tmp_path / "data/train.txt", "./images/c.jpg\n")
    sets.put(tmp_path / "data/val.txt", "./images/a.jpg\n./images/b.jpg\n")
    arguments = ["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    assert "none of the 1 training images has an instance" in capsys.readouterr().err
    train = ["train", str(tmp_path / "data"), "--output", str(tmp_path / "run"), "--weights", "none", "--epochs", "1"]
    assert main(train) == 1
    assert "none of the 1 training images has an instance" in capsys.readouterr().err
    table = read(tmp_path / "data")
    assert no_training_instances(split(table)["train"], table)
    assert no_training_instances(split(table, val=0)["train"], table) == "", "the remedy of the message"


FIELD_CASES = {
    "B08d_background": "'background' (0 instances): usually no class",
    "B08e_labelme_background": "'_background_' (0 instances): usually no class",
    "B09_case_names": "differ only in case, blanks or Unicode form",
    "Y24_names_case": "differ only in case, blanks or Unicode form",
    "B23_all_crowd": "all 2 instances are crowds or ignored",
    "B29_area_1": "area 1 in a box of 900 square pixels",
    "B30_bbox_y_flipped": "outline in [20, 10, 30, 25]; correct the box (y is counted from the bottom)",
    "B33_duplicate_box": "1.jpg, annotation 9: the class and the box of annotation 1 (bolt)",
}


@pytest.mark.parametrize(("name", "text"), FIELD_CASES.items())
def test_field_cases(name: str, text: str, shared_data: Path) -> None:
    findings = inspect_table(read(shared_data / "field_cases" / name))
    assert any(text in finding.message for finding in findings), findings


@pytest.mark.parametrize("name", ["coco_open", "bccd", "oxford_pet_26", "padilla_metrics", "shapes", "flowers"])
def test_clean_sets_have_no_finding(name: str, shared_data: Path) -> None:
    assert inspect_table(read(shared_data / name)) == []
