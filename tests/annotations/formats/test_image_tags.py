"""Tags of whole images (flags of LabelMe, tags of CVAT) are class labels where there are no shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.from_options import load_table
from detseg.cli import main
from detseg.options import EvaluateConfig, TrainConfig
from detseg.training.task_choice import pick_task
from tests.real_exports import sets

Tags = dict[str, dict[str, object]]
"""Image -> its tags, and whether they are set."""


def labelme(root: Path, images: Tags, shapes: dict[str, list[dict[str, object]]] | None = None) -> None:
    for name, flags in images.items():
        sets.labelme(root, {name: (shapes or {}).get(name, [])}, flags=flags)


def cvat(root: Path, images: Tags, shapes: dict[str, list[dict[str, object]]] | None = None) -> None:
    tags = {
        name: [f'<tag label="{tag}" source="manual"></tag>' for tag, is_set in flags.items() if is_set]
        for name, flags in images.items()
    }
    sets.cvat(root, tags)


WRITERS = {"labelme": labelme, "cvat": cvat}
SIX: Tags = {
    **{f"{number}.jpg": {"rust": number % 2 == 0, "crack": number % 2 == 1} for number in range(5)},
    "none.jpg": {"rust": False, "crack": False},
}


def labels(table: AnnotationTable) -> dict[str, list[str]]:
    return {record.path.name: record.class_names(table.class_map) for record in table}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_one_tag_is_the_class_of_an_image(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, SIX)
    table = read(tmp_path)
    assert labels(table) == {f"{number}.jpg": ["crack" if number % 2 else "rust"] for number in range(5)}
    assert table.class_map.names == ("crack", "rust")
    notes = "\n".join(table.notes.lines())
    assert "5 x tag of an image read as its class, because there are no shapes" in notes
    assert "1 x image without a label left out" in notes
    assert pick_task(None, None, table)[0] == "classify"


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_several_tags_are_label_fields(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": {"rust": True, "crack": True}, "b.jpg": {"rust": False, "crack": True}})
    table = read(tmp_path)
    assert [field.name for field in table.label_fields] == ["rust", "crack"]
    assert labels(table) == {"a.jpg": ["rust=1", "crack=1"], "b.jpg": ["rust=0", "crack=1"]}
    assert "2 x tags of an image read as label fields" in table.notes.lines()[0]


def test_a_single_flag_has_two_classes(tmp_path: Path) -> None:
    labelme(tmp_path, {"a.jpg": {"defect": True}, "b.jpg": {"defect": False}, "c.jpg": {}})
    table = read(tmp_path)
    assert labels(table) == {"a.jpg": ["defect"], "b.jpg": ["not defect"]}
    assert "image without the only tag read as class 'not defect': b.json" in "\n".join(table.notes.lines())


def test_flags_of_other_tools_are_numbers_and_texts(tmp_path: Path) -> None:
    labelme(tmp_path, {"a.jpg": {"rust": 1, "crack": 0}, "b.jpg": {"rust": "false", "crack": "true"}})
    assert labels(read(tmp_path)) == {"a.jpg": ["rust"], "b.jpg": ["crack"]}


def test_control_shapes_are_read_and_flags_ignored_where_there_are_both(tmp_path: Path) -> None:
    shape: dict[str, object] = {"label": "bolt", "shape_type": "rectangle", "points": [[10, 10], [40, 40]]}
    labelme(tmp_path, SIX, {"3.jpg": [shape]})
    table = read(tmp_path)
    assert (len(table), len(table.label), table.class_map.names) == (6, 1, ("bolt",))
    assert not table.has_class_index
    assert table.notes.lines()[0].startswith("5 x tags of an image ignored, because there are shapes: 0.json; 1.json")


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_images_without_shapes_and_tags_are_negative(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": {"rust": False}, "b.jpg": {}})
    table = read(tmp_path)
    assert (len(table), len(table.label), bool(table.notes)) == (2, 0, False)


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_command_reads_the_same(
    write: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    write(data, SIX)
    expected = labels(read(data))
    for config in (TrainConfig(data=str(data)), EvaluateConfig(data=str(data))):
        assert labels(load_table(config)) == expected
    assert main(["inspect", str(data), "--output", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {entry["name"]: entry["images"] for entry in summary["classes"]} == {"crack": 2, "rust": 3}
    assert main(["convert", str(data), str(tmp_path / "csv"), "--to", "csv"]) == 0
    assert labels(read(tmp_path / "csv", images=data)) == expected


def test_splits_of_folders_and_selected_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        labelme(tmp_path / split, {f"{split}{name}": flags for name, flags in SIX.items()})
    table = read(tmp_path, classes=["rust"])
    assert sorted(set(table.split.tolist())) == ["train", "val"]
    assert (len(table), table.class_map.names) == (6, ("rust",))
    assert "4 x label of an unselected class left out" in "\n".join(table.notes.lines())
