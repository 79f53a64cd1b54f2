"""COCO metrics are bit-identical to those of pycocotools."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.metrics import CocoEvaluator, evaluate_files, read_ground_truth
from detseg.structures import Prediction

SETS = 200
"""Number of random sets; every second one is evaluated with masks."""


def pycocotools_evaluation(
    ground_truth: dict[str, Any], results: list[dict[str, Any]], iou_type: str, *, renumber: bool = True
) -> COCOeval:
    """Run pycocotools on copies; an empty list, which ``loadRes`` cannot read, becomes a set without annotations."""
    ground_truth, results = copy.deepcopy((ground_truth, results))
    if renumber:
        for number, annotation in enumerate(ground_truth["annotations"], 1):
            annotation["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = ground_truth
        index.createIndex()
        if results:
            detections = index.loadRes(results)
        else:
            detections = COCO()
            detections.dataset = {**ground_truth, "annotations": []}
            detections.createIndex()
        evaluation = COCOeval(index, detections, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def random_set(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A small set with ties, crowds, empty images, id 0, gaps, classes without objects; sometimes many objects.

    Coordinates are multiples of 1/8, which are exact in float32.
    """
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(50, 130, 2))
    image_ids = rng.permutation(40)[: rng.integers(1, 5)].tolist()
    category_ids = rng.permutation(12)[: rng.integers(1, 3)].tolist()
    crowded = seed % 20 < 2  # one set with boxes, one with masks; the same for the sets without detections
    ground_truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []

    def box() -> list[float]:
        x, y = rng.integers(0, (width - 8) * 8) / 8, rng.integers(0, (height - 8) * 8) / 8
        return [x, y, rng.integers(8, (width - x) * 8 + 1) / 8, rng.integers(8, (height - y) * 8 + 1) / 8]

    def random_rle(region: list[float]) -> dict[str, Any]:
        mask = np.zeros((height, width), np.uint8, order="F")
        x, y, w, h = (int(number) for number in region)
        mask[y : y + h + 1, x : x + w + 1] = rng.random((1, 1)) < 0.97
        if rng.random() < 0.5:
            mask[y : y + h // 2, x : x + w // 2] = 0
        rle = coco_mask.encode(mask)
        return {"size": rle["size"], "counts": rle["counts"].decode()}

    for image_id in image_ids:
        objects = 130 if crowded and image_id == image_ids[0] else int(rng.integers(0, 5))
        for _ in range(objects):
            gt_box, category_id = box(), int(rng.choice(category_ids[: 1 if crowded else 2]))
            segmentation: Any = random_rle(gt_box)
            if rng.random() < 0.3:
                x, y, w, h = gt_box
                segmentation = [[x, y, x + w, y, x + w, y + h], [x, y + h / 2, x + w / 2, y, x + w, y + h / 2]]
            ground_truth.append(
                {
                    "id": len(ground_truth),
                    "image_id": image_id,
                    "category_id": category_id,
                    "bbox": gt_box,
                    "area": gt_box[2] * gt_box[3] * float(rng.choice([1, 0.7])),
                    "iscrowd": int(rng.random() < 0.15),
                    "segmentation": segmentation,
                }
            )
            for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.9 and seed % 10 not in (6, 7) else 0):
                moved = [max(0.0, number + rng.integers(-16, 17) / 8) for number in gt_box]
                results.append({"image_id": image_id, "category_id": category_id, "bbox": moved})
        for _ in range(int(rng.integers(0, 3)) if seed % 10 not in (6, 7) else 0):
            results.append({"image_id": image_id, "category_id": int(rng.choice(category_ids)), "bbox": box()})
    for result in results:
        result["score"] = float(rng.integers(0, 9) / 8)  # many ties
        result["segmentation"] = random_rle(result["bbox"])
    return {
        "images": [{"id": i, "height": height, "width": width, "file_name": f"{i}.jpg"} for i in image_ids],
        "categories": [{"id": i, "name": f"class {i}"} for i in category_ids],
        "annotations": ground_truth,
    }, results


def predictions_of(results: list[dict[str, Any]], ground_truth: dict[str, Any]) -> dict[int, Prediction]:
    labels = {category["id"]: label for label, category in enumerate(ground_truth["categories"], 1)}
    predictions = {}
    for image in ground_truth["images"]:
        image_results = [result for result in results if result["image_id"] == image["id"]]
        boxes = np.array([result["bbox"] for result in image_results], np.float32).reshape(-1, 4)
        predictions[image["id"]] = Prediction(
            (image["height"], image["width"]),
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            np.array([labels[result["category_id"]] for result in image_results], np.int64),
            np.array([result["score"] for result in image_results], np.float32),
            [{**r["segmentation"], "counts": r["segmentation"]["counts"].encode()} for r in image_results],
        )
    return predictions


def as_pycocotools(stats: dict[str, float | None]) -> list[float]:
    return [-1.0 if value is None else value for value in stats.values()]


def test_random_sets_are_bit_equal(tmp_path: Path) -> None:
    defined = 0
    for seed in range(SETS):
        ground_truth, results = random_set(seed)
        iou_type = ("bbox", "segm")[seed % 2]
        removed = "segmentation" if iou_type == "bbox" else "bbox"  # pycocotools uses the area of bbox if there is one
        used_results = [{key: value for key, value in result.items() if key != removed} for result in results]
        oracle = pycocotools_evaluation(ground_truth, used_results, iou_type)
        (tmp_path / "ground_truth.json").write_text(json.dumps(ground_truth))
        (tmp_path / "results.json").write_text(json.dumps(used_results))

        evaluator = CocoEvaluator(read_ground_truth(tmp_path / "ground_truth.json"), iou_types=[iou_type], max_dets=100)
        for image_id, prediction in predictions_of(results, ground_truth).items():
            evaluator.update([{"image_id": image_id}], [prediction])
        evaluation = evaluator._evaluation(iou_type)  # type: ignore[arg-type]
        for name in ("precision", "recall", "scores"):
            actual = evaluation.eval[name]
            assert actual.dtype == oracle.eval[name].dtype
            assert actual.shape == oracle.eval[name].shape
            assert actual.tobytes() == np.ascontiguousarray(oracle.eval[name]).tobytes(), (seed, name)
        for metrics in (
            evaluator.compute(),
            evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_type=iou_type),
        ):
            assert as_pycocotools(metrics.stats[iou_type]) == oracle.stats.tolist(), seed
            assert metrics.coco_eval[iou_type].stats.tolist() == oracle.stats.tolist(), seed
        defined += evaluator.compute().stats[iou_type]["AP"] not in (None, 0.0)
    assert defined > SETS // 2


def test_control_one_changed_score_is_detected(tmp_path: Path) -> None:
    ground_truth, results = random_set(0)
    box_results = [{key: value for key, value in result.items() if key != "segmentation"} for result in results]
    (tmp_path / "ground_truth.json").write_text(json.dumps(ground_truth))
    evaluator = CocoEvaluator(read_ground_truth(tmp_path / "ground_truth.json"), max_dets=100)
    box_results[0]["score"] += 2**-20
    oracle = pycocotools_evaluation(ground_truth, box_results, "bbox")
    for image_id, prediction in predictions_of(results, ground_truth).items():
        evaluator.update([{"image_id": image_id}], [prediction])
    assert evaluator._evaluation("bbox").eval["scores"].tobytes() != oracle.eval["scores"].tobytes()


@pytest.mark.parametrize("max_dets", [1, 5, 150])
def test_stats_of_other_limits_have_twelve_numbers(max_dets: int, tmp_path: Path) -> None:
    ground_truth, results = random_set(0)
    (tmp_path / "ground_truth.json").write_text(json.dumps(ground_truth))
    evaluator = CocoEvaluator(read_ground_truth(tmp_path / "ground_truth.json"), max_dets=max_dets)
    for image_id, prediction in predictions_of(results, ground_truth).items():
        evaluator.update([{"image_id": image_id}], [prediction])
    metrics = evaluator.compute()
    stats = metrics.coco_eval["bbox"].stats
    assert stats.shape == (12,)
    assert stats[0] == metrics.stats["bbox"]["AP"]
    assert stats[8] == metrics.stats["bbox"][f"AR{max_dets}"]


@pytest.mark.parametrize("seed", range(12))
def test_random_keypoints_are_bit_equal(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    images = [{"id": i, "height": 200, "width": 200} for i in (0, 3, 9)]
    ground_truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        for _ in range(int(rng.integers(0, 5))):
            points = np.concatenate([rng.uniform(0, 200, (17, 2)), rng.integers(0, 3, (17, 1))], axis=1)
            points[:, 2] *= rng.random() < 0.8
            (x, y), (w, h) = points[:, :2].min(axis=0), np.ptp(points[:, :2], axis=0)
            number = {"id": len(ground_truth) + 1, "image_id": image["id"], "category_id": 1, "iscrowd": 0}
            box = {"bbox": [float(x), float(y), float(w), float(h)], "area": float(w * h * 0.6)}
            labelled = {"num_keypoints": int((points[:, 2] > 0).sum()), "keypoints": points.ravel().tolist()}
            ground_truth.append({**number, **box, **labelled})
            for _ in range(int(rng.integers(0, 3))):
                moved = points.copy()
                moved[:, :2] += rng.normal(0, 6, (17, 2))
                score = float(rng.integers(1, 5) / 4)
                detection = {"image_id": image["id"], "category_id": 1, "keypoints": moved.ravel().tolist()}
                results.append({**detection, "score": score})
    categories = [{"id": 1, "name": "person", "keypoints": [f"point {i}" for i in range(17)]}]
    content = {"images": images, "categories": categories, "annotations": ground_truth}
    (tmp_path / "ground_truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_type="keypoints")
    oracle = pycocotools_evaluation(content, results, "keypoints")
    assert as_pycocotools(metrics.stats["keypoints"]) == oracle.stats.tolist()
    assert len(metrics.stats["keypoints"]) == 10
    assert metrics.coco_eval["keypoints"].stats.tolist() == oracle.stats.tolist()


def perfect_set() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    images = [{"id": i, "height": 100, "width": 100} for i in range(2)]
    ground_truth = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [10.0, 10.0, 30.0, 30.0], "area": 900.0, "iscrowd": 0}
        for i in range(2)
    ]
    results = [{**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in ground_truth]
    return {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": ground_truth}, results


def test_annotation_id_0_is_renumbered(tmp_path: Path) -> None:
    """With annotation id 0, perfect detections on two images have AP 0.25; the control uses the original ids."""
    ground_truth, results = perfect_set()
    (tmp_path / "ground_truth.json").write_text(json.dumps(ground_truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json", iou_type="bbox")
    assert metrics.best() == pytest.approx(1.0)
    assert any("renumbered" in note for note in metrics.notes)
    assert pycocotools_evaluation(ground_truth, results, "bbox").stats[0] == pytest.approx(1.0)
    assert pycocotools_evaluation(ground_truth, results, "bbox", renumber=False).stats[0] == pytest.approx(
        0.25, abs=0.01
    )


PAIRS = (
    "coco_val2014_100/bbox", "coco_val2014_100/segm", "coco_val2014_100/segm-as-bbox", "fce/gt_dataset/bbox",
    "fce/gt_dataset/segm", "fce/keypoints", "padilla/test_coco_eval", "sahi/coco_evaluate", "hotcoco/basic",
    "hotcoco/edge", "hotcoco/zero", "coco_open/d2go_train", "coco_open/d2go_val",
)  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_published_numbers(name: str, shared_data: Path) -> None:
    pair = json.loads((shared_data / "_expected/pycocotools_stats.json").read_text())[name]
    ground_truth, results = shared_data / pair["gt"], shared_data / pair["dt"]
    if not ground_truth.is_file() or not results.is_file():
        pytest.skip(f"{pair['gt']} or {pair['dt']} is not present")
    metrics = evaluate_files(ground_truth, results, iou_type=pair["iouType"])
    stats = as_pycocotools(metrics.stats[pair["iouType"]])
    expected = pair["stats"]
    if name == "hotcoco/zero":
        # The published numbers were computed with the original ids, of which one is 0: pycocotools counts that
        # detected object as missed.
        content, detections = json.loads(ground_truth.read_text()), json.loads(results.read_text())
        raw = pycocotools_evaluation(content, detections, "bbox", renumber=False)
        assert raw.stats.tolist() == pytest.approx(expected, abs=5e-7)
        assert any("renumbered" in note for note in metrics.notes)
        expected = pycocotools_evaluation(content, detections, "bbox").stats.tolist()
    assert stats == pytest.approx(expected, abs=5e-7)
    assert metrics.images == pair["images"]


def test_every_published_pair_is_listed(shared_data: Path) -> None:
    assert set(PAIRS) == set(json.loads((shared_data / "_expected/pycocotools_stats.json").read_text()))
