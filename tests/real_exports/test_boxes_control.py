"""Controls of the tables of corners, lost objects and boxes among outlines: the old rules give wrong readings."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.annotations import AnnotationTable, builder, read
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.from_options import describe_table
from detseg.annotations.lost_objects import LostObjects
from detseg.cli import main
from detseg.errors import DataError
from detseg.masks import segmentation_box
from detseg.metrics.ground_truth_file import read_ground_truth
from detseg.training.task_choice import pick_task
from tests.real_exports import cases_boxes_among_outlines, cases_corners, cases_lost_objects, sets
from tests.real_exports.case import Case, Refused, check

SWITCHED_OFF = ("a box among outlines", "a box among outlines, dropped")


def chosen(cases: list[Case], kinds: str) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases if case.kind.startswith(kinds)]


def as_stated(stated: Any, segmentation: Any, *_: Any) -> Any:
    """The old rule: the box as written, that of the outline only if there is none."""
    box = segmentation_box(segmentation) if stated is None else stated
    return tuple(float(number) for number in box)


def old_problem(box: Any, size_hw: tuple[int, int]) -> str:
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "has no width"
    return "is outside the image" if x >= size_hw[1] or y >= size_hw[0] or x + w <= 0 or y + h <= 0 else ""


@pytest.mark.parametrize(
    "case",
    [
        *(item for item in chosen(cases_corners.CASES, "both corners") if "labelme" not in str(item.id)),
        *chosen(cases_corners.CASES, "outline beside a box that is empty"),
        *chosen(cases_corners.CASES, "keypoints beside"),
    ],
)
def test_control_boxes_as_stated(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(builder, "choose_box", as_stated)
    monkeypatch.setattr(builder, "box_problem", old_problem)
    with pytest.raises(AssertionError):
        check(case, "python", tmp_path, capsys)


@pytest.mark.parametrize(
    "case", [*chosen(cases_lost_objects.CASES, "objects lost"), *chosen(cases_lost_objects.CASES, "all objects lost")]
)
def test_control_images_without_their_objects_are_negatives(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def all_images(self: Any, table: AnnotationTable, keep_all_images: bool) -> AnnotationTable:
        return table

    monkeypatch.setattr(builder.TableBuilder, "_without_emptied", all_images)
    with pytest.raises(pytest.fail.Exception if isinstance(case.expected, Refused) else AssertionError):
        check(case, "train", tmp_path, capsys)


@pytest.mark.parametrize("case", [case for case in cases_boxes_among_outlines.CASES if case.kind in SWITCHED_OFF])
def test_control_one_box_switches_masks_off(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        importlib.import_module("detseg.annotations.read"), "with_complete_masks", lambda table, _: table
    )
    with pytest.raises(AssertionError):
        check(case, "python", tmp_path, capsys)


@pytest.mark.parametrize(
    ("option", "task"), [(None, "segment"), ("box", "segment"), ("drop", "segment"), ("keep", "detect")]
)
def test_the_task_of_boxes_among_outlines(option: str | None, task: str, tmp_path: Path) -> None:
    case = next(case for case in cases_boxes_among_outlines.CASES if case.name == "a box among outlines: coco")
    case.write(tmp_path)
    picked, reason = pick_task(None, None, read(tmp_path, without_mask=option))
    assert picked == task
    assert ("--without-mask box" in reason) is (option == "keep")
    with pytest.raises(DataError, match="choose box, drop or keep"):
        read(tmp_path, without_mask="mask")


def test_dropping_every_image_is_an_error(tmp_path: Path) -> None:
    box, outlined = {"bbox": [60, 10, 20, 30]}, {"bbox": [20, 20, 30, 30], "segmentation": [cases_corners.RING]}
    sets.coco(tmp_path, {"a.png": [box, {**outlined, "category_id": 2}]})
    assert read(tmp_path).has_masks
    assert len(read(tmp_path, classes=["nut"], without_mask="drop")) == 1
    assert read(tmp_path, without_mask="drop").lost == LostObjects(1, 2, 1)


def test_keypoints_need_no_masks(tmp_path: Path) -> None:
    points = [20, 20, 2, 50, 50, 2]
    outlined = {"bbox": [20, 20, 30, 30], "segmentation": [cases_corners.RING], "keypoints": points}
    sets.coco(tmp_path, {"a.png": [outlined, outlined, {"bbox": [20, 20, 30, 30], "keypoints": points}]})
    assert int(read(tmp_path).segmentation.present().sum()) == 2
    assert read(tmp_path, without_mask="box").has_masks


def test_lines_of_lost_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(case for case in cases_lost_objects.CASES if case.name == "objects lost: coco")
    case.write(tmp_path / "data")
    lines = describe_table(read(tmp_path / "data"))
    line = "lost: 2 of 3 objects in 2 images; 1 image lost all its objects and is left out: a.png"
    assert lines[2] == f"  {line}"
    assert lines[3].startswith("  note: 2 x box dropped")
    assert main(["inspect", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed.index(line) < next(i for i, text in enumerate(printed) if text.startswith("problem"))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["lost"]["left_out"] == ["a.png"]


def test_corners_of_a_whole_set_are_still_refused(tmp_path: Path) -> None:
    sets.coco(tmp_path, {"a.png": [{"bbox": [40 + i, 30 + i, 90, 70]} for i in range(6)]})
    with pytest.raises(DataError, match="they look like corners x1, y1, x2, y2"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("rows", "columns", "remedy"),
    [
        ([f"a.png,50,40,{20 + i},{20 + i},bolt" for i in range(6)], "x,y,w,h", "name the columns x, y, w, h"),
        ([f"a.png,50,40,{20 + i},{20 + i},bolt" for i in range(6)], "x1,y1,x2,y2", "write the smaller corner first"),
    ],
)
def test_corners_with_two_readings(rows: list[str], columns: str, remedy: str, tmp_path: Path) -> None:
    sets.csv(tmp_path, "filename,x1,y1,x2,y2,class", rows)
    with pytest.raises(DataError, match=f"6 of 6 boxes the second corner is before the first.*{remedy}"):
        read(tmp_path)
    if columns == "x1,y1,x2,y2":
        rows = [f"a.png,{20 + i},{20 + i},50,40,bolt" for i in range(6)]
    sets.csv(tmp_path, f"filename,{columns},class", rows)
    table = read(tmp_path)
    assert len(table.label) == 6
    assert not table.notes


def test_voc_corners_with_two_readings(tmp_path: Path) -> None:
    sets.voc(tmp_path, {"a.png": [("bolt", (50, 40, 20 + i, 20 + i)) for i in range(6)]})
    with pytest.raises(DataError, match=r"6 of 6 boxes the second corner .* write xmax = xmin \+ width"):
        read(tmp_path)
    for corners in [(50, 40, 70, 60), (20, 20, 50, 40)]:
        sets.voc(tmp_path, {"a.png": [("bolt", corners)] * 6})
        assert not read(tmp_path).notes


COCO_CASES = [
    case
    for case in (*cases_corners.CASES, *cases_lost_objects.CASES)
    if case.format == "coco" and not isinstance(case.expected, Refused) and not case.expected.options
]


@pytest.mark.parametrize("case", COCO_CASES, ids=[case.kind for case in COCO_CASES])
def test_ground_truth_files_are_read_alike(case: Case, tmp_path: Path) -> None:
    case.write(tmp_path)
    table = read_coco(tmp_path / "annotations.json")
    truth = read_ground_truth(tmp_path / "annotations.json", iou_type="bbox")
    found = [list(instance.box) for instance in truth.instances]
    if case.kind in ("objects lost", "crowds are kept"):
        assert any("counted as missed, as in pycocotools: its box has no width" in line for line in truth.notes.lines())
    else:
        assert list(truth.sizes) == table.image_id.tolist()
        np.testing.assert_allclose(found, table.boxes_xywh)
        assert [instance.area for instance in truth.instances] == pytest.approx(table.area.tolist())


def test_evaluation_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets.coco(
        tmp_path,
        {
            "a.png": [{"bbox": None}],
            "b.png": [{"bbox": [50, 50, -30, -30], "area": 900}],
            "c.png": [{"bbox": [5, 5, 9, 9]}],
        },
    )
    boxes = [(1, [1, 1, 40, 40]), (2, [20, 20, 30, 30]), (3, [14, 14, -9, -9])]
    results = [{"image_id": i, "category_id": 1, "score": 0.9 - i / 9, "bbox": box} for i, box in boxes]
    sets.put(tmp_path / "results.json", json.dumps(results))
    command = [
        "evaluate",
        "--ground-truth",
        str(tmp_path / "annotations.json"),
        "--predictions",
        str(tmp_path / "results.json"),
    ]
    assert main([*command, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    notes = " ".join(metrics["notes"])
    for note in ("1 results skipped: their images", "1 x box with exchanged", "lost all its objects: a.png"):
        assert note in notes
    assert main([*command, "--reference"]) == 1
    assert "omit --reference" in capsys.readouterr().err


FIELD: list[tuple[str, dict[str, list[list[float]]]]] = [
    ("B27_negative_wh", {"1.jpg": [[20, 20, 30, 30]], "2.jpg": [[20, 20, 30, 30]]}),
    ("B27b_negative_wh_with_mask", {"1.jpg": [[20, 20, 30, 30]], "2.jpg": [[20, 20, 30, 30]]}),
    ("I02_neg_rect", {"a.jpg": [[20, 20, 30, 30]]}),
    ("Y25_negative_wh", {"a.jpg": [[19.68, 19.8, 29.76, 29.52]]}),
    ("J01_keypoints_no_bbox", {"1.jpg": [[20, 20, 30, 30]], "2.jpg": []}),
]


@pytest.mark.parametrize(("name", "boxes"), FIELD, ids=[name for name, _ in FIELD])
def test_field_cases(name: str, boxes: dict[str, list[list[float]]], shared_data: Path) -> None:
    table = read(shared_data / "field_cases" / name)
    assert {record.path.name: record.boxes_xywh.tolist() for record in table} == {
        image: [pytest.approx(box) for box in rows] for image, rows in boxes.items()
    }
    assert len(table.notes.lines()) >= 1
