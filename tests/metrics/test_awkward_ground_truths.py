"""Perfect detections have AP 1.0 for unusual ground truth files. E2 of the scorecard."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.metrics import evaluate_files

GroundTruth = dict[str, Any]


def usual(images: int = 2, objects: int = 3) -> GroundTruth:
    """A usual ground truth: boxes side by side, two classes."""
    return {
        "images": [{"id": n + 1, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(images)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {
                "id": image * objects + n + 1,
                "image_id": image + 1,
                "category_id": 1 + n % 2,
                "bbox": [5.0 + 6 * (n % 100), 10.0 + 40 * (n // 100), 5.0, 30.5],
                "area": 152.5,
                "iscrowd": 0,
            }
            for image in range(images)
            for n in range(objects)
        ],
    }


def changed(change: Callable[[int, dict[str, Any]], None], kind: str = "annotations", **sizes: int) -> GroundTruth:
    ground_truth = usual(**sizes)
    for number, entry in enumerate(ground_truth[kind]):
        change(number, entry)
    return ground_truth


def renumbered(kind: str, key: str, new: Callable[[int], Any]) -> GroundTruth:
    """A ground truth with different ids of images or categories."""
    ground_truth = usual()
    for entry in ground_truth[kind]:
        entry["id"] = new(entry["id"])
    for annotation in ground_truth["annotations"]:
        annotation[key] = new(annotation[key])
    return ground_truth


def with_crowd() -> GroundTruth:
    ground_truth = usual()
    crowd = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 640.0, 200.0], "area": 9e4, "iscrowd": 1}
    return ground_truth | {"annotations": [crowd, *ground_truth["annotations"]]}


def with_unused_image_and_category() -> GroundTruth:
    ground_truth = usual()
    ground_truth["images"].insert(0, {"id": 77, "file_name": "none.jpg", "width": 9, "height": 9})
    ground_truth["categories"].insert(0, {"id": 55, "name": "never"})
    return ground_truth


AWKWARD: dict[str, GroundTruth] = {
    "an id of 0": changed(lambda number, entry: entry.update(id=number)),
    "one id for all": changed(lambda number, entry: entry.update(id=7)),
    "ids from 0 in each image": changed(lambda number, entry: entry.update(id=number % 3)),
    "no ids": changed(lambda number, entry: entry.pop("id")),
    "very large ids": changed(lambda number, entry: entry.update(id=2**53 - number)),
    "categories with gaps": renumbered("categories", "category_id", lambda old: 900 * old + 7),
    "a category 0": renumbered("categories", "category_id", lambda old: old - 1),
    "large image ids, unsorted": renumbered("images", "image_id", lambda old: 2**33 - old),
    "no area": changed(lambda number, entry: entry.pop("area")),
    "no iscrowd": changed(lambda number, entry: entry.pop("iscrowd")),
    "a crowd around": with_crowd(),
    "images and categories without objects": with_unused_image_and_category(),
}


def files(ground_truth: GroundTruth, folder: Path) -> tuple[Path, Path]:
    """Write the ground truth and a results file with perfect detections."""
    results = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": 0.9}
        for entry in ground_truth["annotations"]
        if not entry.get("iscrowd")
    ]
    paths = folder / "ground_truth.json", folder / "results.json"
    for path, content in zip(paths, (ground_truth, results), strict=True):
        path.write_text(json.dumps(content))
    return paths


@pytest.mark.parametrize("name", AWKWARD)
def test_perfect_detections_have_ap_1(name: str, tmp_path: Path, tally: Any) -> None:
    ap = evaluate_files(*files(AWKWARD[name], tmp_path), iou_type="bbox").scalars()["bbox_AP"]
    tally("E2 unusual ground truths, perfect detections: AP 1", int(ap == pytest.approx(1)), 1)


def test_control_pycocotools_misses_perfect_detections(tmp_path: Path) -> None:
    """pycocotools with the ids of the file, as in most evaluations."""
    scores = {}
    for name, ground_truth in AWKWARD.items():
        gt_path, results_path = files(ground_truth, tmp_path)
        with redirect_stdout(StringIO()):
            try:
                coco = COCO(str(gt_path))
                evaluation = COCOeval(coco, coco.loadRes(str(results_path)), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
                scores[name] = float(evaluation.stats[0])
            except KeyError:
                scores[name] = 0.0
    wrong = [name for name, score in scores.items() if score < 0.999]
    assert len(wrong) >= 4, scores


def test_control_a_missing_detection_lowers_ap(tmp_path: Path) -> None:
    gt_path, results_path = files(usual(), tmp_path)
    results_path.write_text(json.dumps(json.loads(results_path.read_text())[1:]))
    assert float(evaluate_files(gt_path, results_path, iou_type="bbox").scalars()["bbox_AP"] or 0) < 0.9
