"""Controls of the cases about numbers in quotes and text ids, and the same for ground truth and results files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from detseg.annotations import AnnotationTable, read
from detseg.annotations.formats.coco import json_file
from detseg.annotations.table import IMAGE_COLUMNS, INSTANCE_COLUMNS
from detseg.cli import main
from detseg.errors import DataError
from tests.real_exports import cases_numbers_in_quotes, cases_text_ids, sets
from tests.real_exports.cases_numbers_in_quotes import GOOD, RING


def columns(table: AnnotationTable) -> list[Any]:
    values = [getattr(table, name).tolist() for name in (*IMAGE_COLUMNS, *INSTANCE_COLUMNS) if name != "annotation_id"]
    return [*values, [repr(table.segmentation[row]) for row in range(len(table.label))]]


@pytest.mark.parametrize(
    "case",
    [case for case in cases_numbers_in_quotes.CASES if case.format == "coco"],
    ids=lambda case: case.kind,
)
def test_the_lenient_reading_is_the_strict_one_of_the_corrected_file(case: Any, tmp_path: Path) -> None:
    case.write(tmp_path / "odd")
    sets.coco(tmp_path / "good", {"1.jpg": [GOOD], "2.jpg": [GOOD]}, ["bolt"])
    odd, good = read(tmp_path / "odd"), read(tmp_path / "good")
    if case.expected.masks == 2:
        assert columns(odd) == columns(good)
    else:
        rows = odd.image_id[np.repeat(np.arange(len(odd)), odd.stop - odd.start)] == 2
        assert odd.boxes_xywh[rows].tolist() == good.boxes_xywh[1:].tolist()
    assert not good.notes, "control"


def read_strictly(path: Path) -> bool:
    """The old rule: the types as they are. Whether it reads all boxes and outlines of a file."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=json_file._RawFile)
        outlines = json_file.read_outlines([item.segmentation for item in file.annotations])
    except msgspec.ValidationError:
        return False
    return all(item.bbox is not None for item in file.annotations) and not outlines.others


def test_control_the_strict_types_refuse_these_files(tmp_path: Path) -> None:
    noted = [case for case in cases_numbers_in_quotes.CASES if case.format == "coco" and case.expected.note]  # type: ignore[union-attr]
    assert len(noted) > 12
    for case in noted:
        case.write(tmp_path / case.kind)
        assert not read_strictly(tmp_path / case.kind / "annotations.json")
    sets.coco(tmp_path / "good", {"1.jpg": [GOOD]}, ["bolt"])
    assert read_strictly(tmp_path / "good/annotations.json")


def test_everything_that_stays_wrong_is_listed_at_once(tmp_path: Path) -> None:
    bad = [{**GOOD, "bbox": ["a", 1, 2, 3]}, {**GOOD, "area": "large"}, {**GOOD, "segmentation": 7}]
    sets.coco(tmp_path, {"1.jpg": [*bad, bad[0]], "2.jpg": [GOOD]}, ["bolt"])
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    text = str(caught.value)
    assert "annotations.json: 3 kinds of problems: 2 x annotations.bbox: expected 4 numbers, got" in text
    assert '["a", 1, 2, 3] (annotation 1 (1.jpg)), ["a", 1, 2, 3] (annotation 4 (1.jpg))' in text
    assert '1 x annotations.area: expected a number, got "large" (annotation 2 (1.jpg))' in text
    assert "1 x annotations.segmentation: expected a list of lists of numbers or an object, got 7" in text
    assert text.endswith("correct the values, or export the file again")


@pytest.mark.parametrize("value", ["", " ", "12 px", "1,234", "0x10", "1_000", "nan", "1e999", True, {}, [1, 2], None])
def test_control_what_is_no_number_is_not_read_as_one(value: Any, tmp_path: Path) -> None:
    sets.coco(tmp_path, {"1.jpg": [{**GOOD, "bbox": [20, 20, 30, value]}]}, ["bolt"])
    with pytest.raises(DataError, match=r"1 x annotations.bbox: expected 4 numbers"):
        read(tmp_path)


def test_a_good_file_is_not_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets.coco(tmp_path, {"1.jpg": [GOOD]}, ["bolt"])
    monkeypatch.setattr(json_file, "mend_coco", None)
    assert len(read(tmp_path)) == 1
    sets.coco(tmp_path, {"1.jpg": [{**GOOD, "area": "900"}]}, ["bolt"])
    with pytest.raises(TypeError):
        read(tmp_path)


def test_bad_instances_error_refuses_what_has_no_place(tmp_path: Path) -> None:
    sets.coco(tmp_path, {"1.jpg": [GOOD, {"bbox": [], "segmentation": []}]}, ["bolt"])
    with pytest.raises(DataError, match="box, outline and keypoints are missing"):
        read(tmp_path, bad_instances="error")


@pytest.mark.parametrize("case", cases_text_ids.CASES, ids=lambda case: case.kind)
def test_results_are_written_with_the_ids_of_the_file(case: Any, tmp_path: Path) -> None:
    from detseg.metrics import CocoEvaluator, evaluate_files
    from detseg.structures import Prediction

    case.write(tmp_path)
    source = tmp_path / "annotations.json"
    table = read(tmp_path)
    evaluator = CocoEvaluator(table, iou_types=["bbox"])
    for record in table:
        box, score = np.array([[20, 20, 50, 50]], np.float32), np.ones(1, np.float32)
        prediction = Prediction(record.size_hw, box, np.ones(1, np.int64), score)
        evaluator.update([{"image_id": record.image_id}], [prediction])
    results = evaluator.results()
    value = json.loads(source.read_text())
    assert [result["image_id"] for result in results] == [image["id"] for image in value["images"]]
    assert {result["category_id"] for result in results} == {value["categories"][0]["id"]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert evaluate_files(source, tmp_path / "results.json", iou_type="bbox").best() == pytest.approx(1)
    mixed = [{**result, "image_id": f" {result['image_id']} ", "score": "0.9"} for result in results]
    (tmp_path / "results.json").write_text(json.dumps(mixed))
    metrics = evaluate_files(source, tmp_path / "results.json", iou_type="bbox")
    assert metrics.best() == pytest.approx(1)
    assert any("2 x numbers in quotes read (score)" in note for note in metrics.notes)
    (tmp_path / "results.json").write_text(json.dumps([{**results[0], "image_id": "img_9"}]))
    with pytest.raises(DataError, match=r"1 image ids are not in annotations.json: img_9"):
        evaluate_files(source, tmp_path / "results.json")


def test_text_ids_of_two_files(tmp_path: Path) -> None:
    """Each file numbers its texts from 1; the joined table keeps the texts, and joins the classes by name."""
    for split, order in (("train", {1: "c-bolt", 2: "c-nut"}), ("val", {1: "c-bolt", 2: "c-nut"})):
        cases_text_ids.renamed({1: f"{split}_a", 2: f"{split}_b"}, order)(tmp_path / split)
    path = tmp_path / "val/annotations.json"
    value = json.loads(path.read_text())
    value["categories"].reverse()
    path.write_text(json.dumps(value))
    table = read(tmp_path)
    ids = [table.text_ids.image(number) for number in table.image_id.tolist()]
    assert ids == ["train_a", "train_b", "val_a", "val_b"]
    assert {table.class_map.name_of(int(label)) for label in table.label} == {"bolt"}
    written = [table.text_ids.category(number) for number in table.class_map.category_ids]
    assert dict(zip(table.class_map.names, written, strict=True)) == {"bolt": "c-bolt", "nut": "c-nut"}


def test_a_text_id_that_is_used_twice_or_not_there(tmp_path: Path) -> None:
    cases_text_ids.renamed({1: "a", 2: "a"}, {})(tmp_path / "twice")
    with pytest.raises(DataError, match=r"images.id: a text that is empty or used twice, got \"a\""):
        read(tmp_path / "twice")
    cases_text_ids.renamed({1: "a", 2: "b"}, {})(tmp_path / "gone")
    path = tmp_path / "gone/annotations.json"
    value = json.loads(path.read_text())
    value["annotations"][0]["image_id"] = "c"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r'1 x annotations.image_id: not among the ids of the images, got "c"'):
        read(tmp_path / "gone")


def test_ids_survive_a_conversion(tmp_path: Path) -> None:
    cases_text_ids.renamed({1: "img_1", 2: "img_2"}, {1: "bolt-7"})(tmp_path / "data")
    assert main(["convert", str(tmp_path / "data"), str(tmp_path / "out"), "--to", "coco"]) == 0
    value = json.loads((tmp_path / "out/annotations/instances.json").read_text())
    assert [image["id"] for image in value["images"]] == ["img_1", "img_2"]
    assert {item["category_id"] for item in value["annotations"]} == {"bolt-7"}


def test_ground_truth_files_are_read_in_the_same_way(tmp_path: Path) -> None:
    from detseg.metrics import read_ground_truth

    odd = {"bbox": "20 20 30 30", "area": ["900"], "iscrowd": "0", "segmentation": RING, "image_id": "1"}
    sets.coco(tmp_path, {"1.jpg": [odd, {"bbox": [], "segmentation": {}}], "2.jpg": [GOOD]}, ["bolt"])
    truth = read_ground_truth(tmp_path / "annotations.json")
    sets.coco(tmp_path, {"1.jpg": [GOOD], "2.jpg": [GOOD]}, ["bolt"])
    good = read_ground_truth(tmp_path / "annotations.json")
    assert truth.instances == good.instances
    notes = "\n".join(truth.notes.lines())
    for kind in (
        "numbers in quotes read (annotations.bbox)",
        "number in a list",
        "box, outline and keypoints are missing",
        "one ring",
    ):
        assert kind in notes
    sets.coco(tmp_path, {"1.jpg": [{**GOOD, "bbox": [1, 2]}, {**GOOD, "area": "x"}]}, ["bolt"])
    with pytest.raises(DataError, match=r"2 kinds of problems: 1 x annotations.bbox: .*; 1 x annotations.area: "):
        read_ground_truth(tmp_path / "annotations.json")
