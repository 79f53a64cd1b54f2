"""What ``inspect`` says is what ``train`` will see: keypoints, images in two of the splits that it makes, and instances
without a mask by their file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read, shared_content, split
from detseg.annotations.builder import TableBuilder
from detseg.annotations.from_options import load_splits
from detseg.annotations.instance_name import instance_name
from detseg.annotations.obstacles import obstacles
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.doctor import inspect_images, inspect_table, summary
from detseg.keypoints import keypoint_schema
from detseg.options import TrainConfig
from tests.real_exports import any_format, sets

BOX = (20.0, 10.0, 50.0, 40.0)
NAMES = [f"{number}.jpg" for number in range(10)]


def test_keypoints_are_counted_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = [[20, 20, 2, 30, 20, 1, 0, 0, 0], [20, 20, 2, 30, 20, 2, 25, 30, 1], [0] * 9]
    items = [{"bbox": [15, 15, 30, 30], "keypoints": each, "num_keypoints": 0} for each in points]
    crowd = {"bbox": [15, 15, 30, 30], "keypoints": points[0], "iscrowd": 1}
    sets.coco(tmp_path / "data", {"a.jpg": items[:2], "b.jpg": [*items[2:], crowd]}, ["face"])
    file = tmp_path / "data" / "annotations.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    value["categories"][0] |= {"keypoints": ["left_eye", "right_eye", "nose"], "skeleton": []}
    file.write_text(json.dumps(value), encoding="utf-8")
    arguments = ["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["keypoints"] == [
        {"name": "left_eye", "labelled": 2, "visible": 2},
        {"name": "right_eye", "labelled": 2, "visible": 1},
        {"name": "nose", "labelled": 1, "visible": 0},
    ]
    assert (printed["with_keypoints"], printed["keypoint_pairs"]) == (2, [["left_eye", "right_eye"]])
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert (
        "keypoints: 3, labelled in 2 training instances\n  swapped by a horizontal flip: left_eye - right_eye" in text
    )
    assert "  left_eye          2         2\n" in text


def test_data_without_keypoints_has_no_line_of_them() -> None:
    builder = TableBuilder(ClassMap.from_names(["face"]), "", source="test data")
    builder.add_image("a.jpg", (40, 60))
    builder.add_instance([1, 2, 30, 20], 1)
    result = summary(builder.build())
    assert (result.keypoints, result.with_keypoints, result.keypoint_pairs) == ((), 0, ())
    assert "keypoints" not in "\n".join(result.lines())


def test_keypoints_without_pairs_are_said() -> None:
    builder = TableBuilder(
        ClassMap.from_names(["part"]), "", source="test", keypoint_schema=keypoint_schema(["a", "b"])
    )
    builder.add_image("a.jpg", (40, 60))
    assert "  swapped by a horizontal flip: none (name pairs left_x and right_x)" in summary(builder.build()).lines()


def copies(root: Path, format: str) -> AnnotationTable:
    """Ten images with the same content, so that some are in two splits whatever these are."""
    any_format.FORMATS[format](root, {name: [("bolt", BOX)] for name in NAMES}, ["bolt"])
    table = read(root)
    first = (table.root / str(table.media[0])).read_bytes()
    for file in table.files():
        file.write_bytes(first)
    return table


@pytest.mark.parametrize("format", any_format.FORMATS)
def test_images_in_two_of_the_splits_that_train_makes(format: str, tmp_path: Path) -> None:
    table = copies(tmp_path, format)
    assert len(set(table.split.tolist())) == 1, "control: the split of the source alone has no such image"
    findings = [finding for finding in inspect_images(table) if finding.kind == "same image in two splits"]
    pairs = shared_content(load_splits(TrainConfig(data="x"), table))
    assert len(findings) == len(pairs) == 2
    assert findings[0].message.startswith(
        f"{pairs[0][0]} = {pairs[0][1]}: an image used for training is also evaluated"
    )
    assert findings[0].message.endswith("remove one, or keep both in one split (train --group)")


def test_the_remedy_keeps_copies_in_one_split(tmp_path: Path) -> None:
    table = copies(tmp_path / "data", "voc")
    assert shared_content(load_splits(TrainConfig(data="x"), table))
    for file in table.files():
        if file.name not in NAMES[:5]:
            sets.image(file)
    groups = tmp_path / "groups.csv"
    lines = [f"{name},{'copies' if name in NAMES[:5] else name}" for name in NAMES]
    groups.write_text("\n".join(["file,group", *lines]), encoding="utf-8")
    assert shared_content(load_splits(TrainConfig(data="x", group=str(groups)), table)) == []


def test_the_split_is_that_of_the_defaults_of_train(tmp_path: Path) -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for number in range(150):
        builder.add_image(f"{number}.jpg", (40, 60))
    table = builder.build()
    expected = load_splits(TrainConfig(data="x"), table)
    assert {name: part.media.tolist() for name, part in split(table).items()} == {
        name: part.media.tolist() for name, part in expected.items()
    }


def test_control_different_images_and_a_single_one_have_no_such_finding(tmp_path: Path) -> None:
    any_format.voc(tmp_path, {name: [("bolt", BOX)] for name in NAMES}, [])
    table = read(tmp_path)
    assert inspect_images(table) == []
    assert inspect_images(table.subset([0])) == []


def test_a_table_that_cannot_be_split_is_an_error() -> None:
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for number in range(3):
        builder.add_image(f"{number}.jpg", (40, 60), group="one")
        builder.add_instance([1, 2, 30, 20], 1)
    (finding,) = inspect_table(builder.build())
    assert (finding.kind, finding.severity) == ("no split", "error")
    assert "1 groups cannot be split into train, val" in finding.message


@pytest.mark.parametrize("has_ids", [True, False])
def test_instances_without_a_mask_are_named_by_file(has_ids: bool) -> None:
    ring = [np.array([[1.0, 2], [31, 2], [31, 22]])]
    builder = TableBuilder(ClassMap.from_names(["a"]), "/nowhere", source="test data")
    for number, name in enumerate(("a.jpg", "b.jpg")):
        builder.add_image(name, (40, 60))
        for item in range(2):
            number_in_file = 10 * number + item if has_ids else -1
            outline = None if (number, item) == (1, 1) else ring
            builder.add_instance([1, 2, 30, 20], 1, segmentation=outline, annotation_id=number_in_file)
    table = builder.build()
    expected = "b.jpg, annotation 11" if has_ids else "b.jpg, instance 2"
    places = [finding.place for finding in inspect_table(table) if finding.kind == "instance without a mask"]
    assert places == [expected]
    assert f"the first without is {expected} (" in obstacles(table)["segment"]
    assert "-1" not in "".join(finding.message for finding in inspect_table(table))
    assert instance_name(table.subset([1]), 3) == expected
    reversed_table = replace(table.subset([1, 0]))
    assert instance_name(reversed_table, 0) == ("a.jpg, annotation 0" if has_ids else "a.jpg, instance 1")
