"""Untrusted files: errors contain the location, and everything is validated before native code uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg.errors import DataError
from detseg.masks import mask_to_rle
from detseg.metrics import evaluate_files, read_ground_truth

BOX = [10, 10, 30, 30]


def rle(size_hw: tuple[int, int] = (100, 100)) -> dict[str, Any]:
    mask = np.zeros(size_hw, np.uint8)
    mask[10:40, 10:40] = 1
    value = mask_to_rle(mask)
    return {"size": value["size"], "counts": value["counts"].decode()}


def ground_truth(**changes: Any) -> dict[str, Any]:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": BOX,
        "area": 900,
        "iscrowd": 0,
        "segmentation": rle(),
    }
    value = {
        "images": [{"id": 1, "file_name": "one.jpg", "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{**annotation, **changes}],
    }
    value["annotations"] = [{k: v for k, v in a.items() if v != "absent"} for a in value["annotations"]]
    return value


def result(**changes: Any) -> dict[str, Any]:
    value = {"image_id": 1, "category_id": 1, "bbox": BOX, "score": 0.9, **changes}
    return {key: item for key, item in value.items() if item != "absent"}


def evaluate(folder: Path, ground_truth_value: Any, results: Any, **options: Any) -> Any:
    for name, value in (("ground_truth.json", ground_truth_value), ("results.json", results)):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        (folder / name).write_bytes(text)
    return evaluate_files(folder / "ground_truth.json", folder / "results.json", **options)


@pytest.mark.parametrize(
    ("results", "iou_type", "ap"),
    [
        ([], None, 0.0),  # pycocotools: IndexError
        ([result()], None, 1.0),
        ({"annotations": [result()], "info": {}}, None, 1.0),
        ([result(bbox="absent", segmentation=rle())], None, 1.0),
        ([result(bbox="absent", segmentation=rle())], "bbox", 1.0),
        ([result(bbox=[], segmentation=rle())], "bbox", 1.0),
        ([result(bbox="absent", segmentation=[[10, 10, 40, 10, 40, 40, 10, 40]])], "segm", 1.0),
        ([result(bbox="absent", segmentation=[[10, 10, 40, 10, 40, 40, 10, 40]])], "bbox", 1.0),
        ([result()], "segm", 1.0),  # a filled box, as in pycocotools
        ([result(bbox=[60, 60, 9, 9])], None, 0.0),
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_forms_of_results(results: Any, iou_type: str | None, ap: float, bom: bytes, tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, bom + json.dumps(ground_truth()).encode(), results, iou_type=iou_type)
    assert metrics.best() == pytest.approx(ap)


@pytest.mark.parametrize(
    ("changes", "iou_type"),
    [
        ({}, "segm"),
        ({"area": "absent"}, "bbox"),
        ({"area": None, "iscrowd": None}, "bbox"),
        ({"id": "absent", "iscrowd": "absent"}, "bbox"),
        ({"id": "a name"}, "bbox"),
        ({"bbox": "absent"}, "bbox"),
        ({"bbox": "absent", "area": "absent"}, "segm"),
        ({"segmentation": []}, "bbox"),
        ({"segmentation": "absent", "area": "absent"}, "bbox"),
        ({"segmentation": [[1, 2, 3, 4]]}, "bbox"),  # corrupt, but not used
        ({"segmentation": {"size": [100, 100], "counts": [1010] + [30, 70] * 29 + [30, 6060]}}, "segm"),
    ],
)
def test_forms_of_ground_truth(changes: dict[str, Any], iou_type: str, tmp_path: Path) -> None:
    metrics = evaluate(tmp_path, ground_truth(**changes), [result(segmentation=rle())], iou_type=iou_type)
    assert metrics.best() == pytest.approx(1.0)


def test_image_size_is_only_needed_for_masks(tmp_path: Path) -> None:
    value = ground_truth()
    value["images"] = [{"id": 1}]
    assert evaluate(tmp_path, value, [result()]).best() == pytest.approx(1.0)
    results = [result(bbox="absent", segmentation=rle())]
    assert evaluate(tmp_path, value, results, iou_type="bbox").best() == pytest.approx(1.0)
    with pytest.raises(DataError, match="masks need the size of the image"):
        evaluate(tmp_path, value, results)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (b'[{"image_id": 1, "category_id": 1, "bbox": [1, NaN, 2, 3], "score": 1}]', r"results\.json is not JSON.*NaN"),
        (b'[{"image_id": 1, "category_id": 1, "bbox": [1, Infinity, 2, 3], "score": 1}]', "is not JSON"),
        (
            b'[{"image_id": 1, "category_id": 1, "bbox": [1, 1e999, 2, 3], "score": 1}]',
            r"\$\[0\]\.bbox\[1\]|out of range",
        ),
        (b"[{]", "is not JSON"),
        (b"[" * 100_000, "nested too deeply|is not JSON|Expected"),
        (b'[{"segmentation": ' + b"[" * 100_000, "nested too deeply|is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        ({"images": []}, "missing required field `annotations`"),
        ([result(), {"image_id": 1, "bbox": BOX, "score": 1}], r"1 x category_id: missing, .*\(result 1\)"),
        ([result(score="high")], r'1 x score: expected a number, got "high" \(result 0\)'),
        ([result(image_id="one")], r"1 image ids are not in ground_truth\.json: one"),
        ([result(image_id=10**30)], r"1 image ids are not in ground_truth\.json: 10+"),
        ([result(bbox=[1, 2, 3])], r"bbox: expected 4 numbers, got \[1, 2, 3\] \(result 0\)"),
        ([result(bbox=[1, 2, 1e200, 1e200])], "too large"),
        ([result(bbox="absent")], "neither box nor segmentation"),
        (
            [result(image_id=i) for i in range(1, 9)],
            r"7 image ids are not in ground_truth\.json: 2, 3, 4, 5, 6, \.\.\.",
        ),
    ],
)
def test_error_messages_for_results(results: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path, ground_truth(), results)


MALICIOUS_SEGMENTATIONS = [
    {"size": [100, 100], "counts": [4]},  # pycocotools decodes uninitialised memory
    {"size": [100, 100], "counts": [-1, 10001]},
    {"size": [50, 100], "counts": [5000]},
    {"size": [100, 100], "counts": "\x00\x01"},
    {"size": [100, 100], "counts": 5},
    {"size": 100, "counts": [10000]},
    {"size": [-100, -100], "counts": [10000]},
    {"size": ["100", 100], "counts": [10000]},
    {"size": [100, 100], "counts": [1, [9999]]},
    {"size": [100, 100], "counts": [10**400]},
    {"size": [100, 100], "counts": [5000.0, 5000.0]},
    [[10**400, 2, 3, 4, 5, 6]],
    {"counts": [10000]},
    [[1e8, 0, 0, 1e8, 1e8, 1e8]],  # pycocotools needs 11.5 GB
    [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5, 6, 7]],
    [["a", 2, 3, 4, 5, 6]],
    [1, 2, 3, 4, 5, "x"],
    "text",
    7,
]


@pytest.mark.parametrize("segmentation", MALICIOUS_SEGMENTATIONS, ids=range(len(MALICIOUS_SEGMENTATIONS)))
def test_malicious_segmentations_are_rejected_in_both_files(segmentation: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.json, result 0 \(image 1\)"):
        evaluate(tmp_path, ground_truth(), [result(bbox="absent", segmentation=segmentation)], iou_type="segm")
    with pytest.raises(DataError, match=r"ground_truth\.json, annotation 1 \(one\.jpg\)"):
        evaluate(tmp_path, ground_truth(segmentation=segmentation), [result(segmentation=rle())], iou_type="segm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["images"].append(v["images"][0]), "image id 1 appears more than once"),
        (lambda v: v["categories"].append(v["categories"][0]), "category id 1 appears more than once"),
        (lambda v: v.pop("categories"), "1 x categories: missing"),
        (
            lambda v: v["annotations"][0].update(bbox=[1, 2]),
            r"bbox: expected 4 numbers, got \[1, 2\] \(annotation 1 \(one\.jpg\)\)",
        ),
        (
            lambda v: v["annotations"][0].update(area="big"),
            r'1 x annotations\.area: expected a number, got "big" \(annotation 1',
        ),
        (lambda v: v["annotations"][0].update(segmentation=[]), "no segmentation"),
    ],
)
def test_error_messages_for_ground_truth(change: Any, message: str, tmp_path: Path) -> None:
    value = ground_truth()
    change(value)
    with pytest.raises(DataError, match=message):
        evaluate(tmp_path, value, [result(segmentation=rle())], iou_type="segm")


def test_skipped_annotations_are_counted(tmp_path: Path) -> None:
    """Annotations of unknown images and categories, which pycocotools ignores; one note each, also for repeated ids."""
    value = ground_truth(ignore=1)
    extra = value["annotations"][0]
    value["annotations"] += [{**extra, "image_id": 99}, {**extra, "category_id": 5, "id": 2}]
    metrics = evaluate(tmp_path, value, [result(), result(category_id=5), result(category_id=8)], iou_type="bbox")
    notes = "\n".join(metrics.notes)
    assert metrics.best() == pytest.approx(1.0)
    assert metrics.objects == {"cat": 1}
    assert "1 x annotation skipped: its image is not listed" in notes
    assert "1 x annotation skipped: its category is not listed" in notes
    assert '"ignore" has no effect' in notes
    assert "renumbered" in notes
    assert "2 results skipped: the ground truth has no category 5, 8 (2 such ids)" in notes
    assert [line for line in metrics.lines() if line.startswith("note: ")] == [f"note: {n}" for n in metrics.notes]


def test_two_categories_with_the_same_name(tmp_path: Path) -> None:
    value = ground_truth()
    value["categories"].append({"id": 4, "name": "cat"})
    metrics = evaluate(tmp_path, value, [result()])
    assert metrics.per_class["bbox"] == {
        "cat (id 1)": {"AP": pytest.approx(1.0), "AP50": pytest.approx(1.0)},
        "cat (id 4)": {"AP": None, "AP50": None},
    }


def test_too_many_objects_for_the_limit(tmp_path: Path) -> None:
    value = ground_truth()
    boxes = [[i % 15 * 6.0, i // 15 * 9.0, 5.0, 8.0] for i in range(150)]
    value["annotations"] = [{**value["annotations"][0], "id": i, "bbox": b, "area": 40} for i, b in enumerate(boxes, 1)]
    results = [result(bbox=box) for box in boxes]
    capped = evaluate(tmp_path, value, results)
    assert capped.best() == pytest.approx(0.663, abs=1e-3)
    assert any("pass --max-dets 150" in note for note in capped.notes)
    assert evaluate(tmp_path, value, results, max_dets=150).best() == pytest.approx(1.0)


def test_keypoints_of_other_sets_need_sigmas(tmp_path: Path) -> None:
    value = ground_truth(keypoints=[15, 15, 2, 30, 30, 1])
    value["categories"][0]["keypoints"] = ["nose", "tail"]
    results = [result(bbox="absent", keypoints=[15, 15, 0.9, 30, 30, 0.8])]
    with pytest.raises(DataError, match="OKS sigmas"):
        evaluate(tmp_path, value, results, iou_type="keypoints")
    metrics = evaluate(tmp_path, value, results, sigmas=(0.05, 0.1))
    assert metrics.max_dets == {"keypoints": 20}
    assert metrics.best() == pytest.approx(1.0)
    with pytest.raises(DataError, match="3 keypoint numbers"):
        evaluate(tmp_path, value, [result(keypoints=[1, 2, 3])], iou_type="keypoints", sigmas=(0.05, 0.1))
    assert evaluate(tmp_path, value, results, iou_type="bbox").stats["bbox"]["AP"] == 0.0  # extent of the points


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json")


def test_nothing_is_clipped(tmp_path: Path) -> None:
    (tmp_path / "ground_truth.json").write_text(json.dumps(ground_truth(bbox=[-5, 90, 30, 30], area=1)))
    (instance,) = read_ground_truth(tmp_path / "ground_truth.json", iou_type="bbox").instances
    assert (instance.box, instance.area) == ((-5.0, 90.0, 30.0, 30.0), 1.0)
