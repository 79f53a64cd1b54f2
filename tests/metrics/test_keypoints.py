"""OKS AP of a table equals pycocotools, for COCO's 17 keypoints and for other keypoints with their own sigmas."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.annotations.builder import TableBuilder
from detseg.annotations.formats.coco.read import read_coco
from detseg.annotations.formats.coco.write import write_coco
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import COCO_NAMES, COCO_SIGMAS, KeypointSchema, difference, keypoint_schema
from detseg.metrics import CocoEvaluator, evaluate_files
from detseg.structures import Prediction

HW = (200, 200)
FIVE = keypoint_schema([f"p{i}" for i in range(5)], sigmas=(0.02, 0.05, 0.1, 0.03, 0.2))
NUMBERS = ("AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large")


def random_set(seed: int, schema: KeypointSchema) -> tuple[AnnotationTable, dict[int, Prediction]]:
    """Images with ties, crowds, ignored objects and objects without labelled keypoints, two classes, empty images."""
    rng = np.random.default_rng(seed)
    builder = TableBuilder(ClassMap(("a", "b"), (9, 4)), "", source="set", keypoint_schema=schema)
    predictions: dict[int, Prediction] = {}
    count = len(schema.names)
    for image_id in (0, 3, 9, 12):
        builder.add_image("", HW, image_id=image_id)
        rows = []
        for _ in range(int(rng.integers(0, 25 if seed % 6 == 0 else 6))):
            points = np.concatenate([rng.integers(0, 1600, (count, 2)) / 8, rng.integers(0, 3, (count, 1))], axis=1)
            points[:, 2] *= rng.random() < 0.8
            corner, size = points[:, :2].min(axis=0), np.ptp(points[:, :2], axis=0) + 1
            label, crowd, ignore = int(rng.integers(1, 3)), bool(rng.random() < 0.1), bool(rng.random() < 0.1)
            size = np.minimum(size, 200 - corner)
            builder.add_instance(
                [*corner, *size], label, area=float(size.prod() * 0.6), iscrowd=crowd, ignore=ignore, keypoints=points
            )
            for _ in range(int(rng.integers(0, 3))):
                moved = points.copy()
                moved[:, :2] += rng.integers(-60, 61, (count, 2)) / 8 * rng.choice([0, 0.5, 1])
                rows.append((moved, label if rng.random() < 0.9 else 3 - label, rng.integers(1, 5) / 4))
        keypoints = np.array([row[0] for row in rows], np.float32).reshape(-1, count, 3)
        low, high = (getattr(keypoints[..., :2], which)(axis=1) for which in ("min", "max"))
        order = np.argsort([-row[2] for row in rows], kind="stable").astype(int)
        predictions[image_id] = Prediction(
            HW,
            np.concatenate([low, high], axis=1)[order],
            np.array([row[1] for row in rows], np.int64)[order],
            np.array([row[2] for row in rows], np.float32)[order],
            None,
            keypoints[order],
        )
    return builder.build(), predictions


def evaluator_with(table: AnnotationTable, predictions: dict[int, Prediction], **options: Any) -> CocoEvaluator:
    evaluator = CocoEvaluator(table, **options)
    for image_id, prediction in predictions.items():
        evaluator.update([{"image_id": image_id}], [prediction])
    return evaluator


def oracle(
    table: AnnotationTable, results: list[dict[str, Any]], sigmas: tuple[float, ...], max_dets: int = 20
) -> COCOeval:
    annotations = []
    for record in table:
        for i in range(len(record)):
            assert record.keypoints is not None
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": table.class_map.category_ids[int(record.labels[i]) - 1],
                    "bbox": record.boxes_xywh[i].tolist(),
                    "area": float(record.areas[i]),
                    "iscrowd": int(record.iscrowd[i] or record.ignore[i]),
                    "keypoints": record.keypoints[i].ravel().tolist(),
                    "num_keypoints": int((record.keypoints[i, :, 2] > 0).sum()),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = {
            "images": [{"id": record.image_id} for record in table],
            "categories": [{"id": i} for i in table.class_map.category_ids],
            "annotations": annotations,
        }
        index.createIndex()
        # without boxes, as in torchvision's reference script: sizes are those of the keypoints
        detections = index.loadRes([{key: value for key, value in r.items() if key != "bbox"} for r in results])
        evaluation = COCOeval(index, detections, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.params.maxDets = [max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
        if max_dets == 20:  # its summary only supports 20
            evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("schema", [keypoint_schema(COCO_NAMES), FIVE], ids=["coco", "five"])
@pytest.mark.parametrize("seed", range(10))
def test_metrics_of_a_table_equal_pycocotools(schema: KeypointSchema, seed: int) -> None:
    table, predictions = random_set(seed, schema)
    evaluator = evaluator_with(table, predictions, iou_types=["bbox", "keypoints"], max_dets=20)
    metrics = evaluator.compute()
    expected = oracle(table, evaluator.results(), schema.sigmas)
    stats = metrics.stats["keypoints"]
    assert tuple(stats) == NUMBERS
    assert [-1 if stats[name] is None else stats[name] for name in NUMBERS] == expected.stats.tolist()
    assert metrics.max_dets["keypoints"] == 20
    assert metrics.best() == (stats["AP"] or 0)
    arrays = evaluator._evaluation("keypoints").eval
    for name in ("precision", "recall", "scores"):
        assert arrays[name].tobytes() == np.ascontiguousarray(expected.eval[name]).tobytes()


def test_control_other_sigmas_change_the_metrics() -> None:
    table, predictions = random_set(2, FIVE)
    evaluator = evaluator_with(table, predictions, iou_types=["keypoints"], max_dets=20)
    ap = oracle(table, evaluator.results(), tuple(2 * sigma for sigma in FIVE.sigmas)).stats[0]
    assert evaluator.compute().best() != ap
    assert ap > 0


def test_more_than_20_objects_of_a_class_are_all_evaluated() -> None:
    table, predictions = random_set(0, FIVE)
    evaluator = evaluator_with(table, predictions, iou_types=["keypoints"])
    limit = evaluator.compute().max_dets["keypoints"]
    assert limit == max(20, evaluator.ground_truth.most_of_a_class)
    expected = oracle(table, evaluator.results(), FIVE.sigmas, limit)
    assert (
        evaluator._evaluation("keypoints").eval["precision"].tobytes()
        == np.ascontiguousarray(expected.eval["precision"]).tobytes()
    )


@pytest.mark.parametrize("schema", [keypoint_schema(COCO_NAMES), FIVE], ids=["coco", "five"])
def test_the_files_of_a_run_have_the_same_metrics(schema: KeypointSchema, tmp_path: Path) -> None:
    """Except for size ranges: a results file has boxes, and pycocotools uses them as the size of a detection."""
    table, predictions = random_set(1, schema)
    table = table.subset(range(len(table)))
    evaluator = evaluator_with(table, predictions, iou_types=["bbox", "keypoints"], max_dets=20)
    content = {
        "images": [{"id": record.image_id, "height": 200, "width": 200} for record in table],
        "categories": [
            {"id": i, "name": n, "keypoints": list(schema.names), "sigmas": list(schema.sigmas)}
            for i, n in zip(table.class_map.category_ids, table.class_map.names, strict=True)
        ],
        "annotations": [
            {
                "id": number,
                "image_id": instance.image_id,
                "category_id": table.class_map.category_ids[instance.label - 1],
                "bbox": instance.box,
                "area": instance.area,
                "iscrowd": int(instance.iscrowd),
                "keypoints": instance.keypoints,
                "num_keypoints": instance.num_keypoints,
            }
            for number, instance in enumerate(evaluator.ground_truth.instances, 1)
        ],
    }
    (tmp_path / "ground_truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(evaluator.results()))
    metrics = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json")  # chooses keypoints
    assert list(metrics.stats) == ["keypoints"]
    expected = evaluator.compute().stats["keypoints"]
    for name in NUMBERS:
        if "_" not in name:
            assert metrics.stats["keypoints"][name] == expected[name], name
    assert any("size range is that of the box" in note for note in metrics.notes)


# The schema


@pytest.mark.parametrize(
    ("names", "options", "sigmas"),
    [
        (COCO_NAMES, (), COCO_SIGMAS),
        (tuple(f"point {i + 1}" for i in range(17)), (), COCO_SIGMAS),  # as in pycocotools
        (("a", "b"), (), (0.05, 0.05)),
        (("a", "b"), (0.1, 0.2), (0.1, 0.2)),
    ],
)
def test_default_and_custom_sigmas(
    names: tuple[str, ...], options: tuple[float, ...], sigmas: tuple[float, ...]
) -> None:
    assert keypoint_schema(names, sigmas=options).sigmas == sigmas


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [([0.1], "for 2 keypoints"), ([0.1, 0], "above 0"), ([0.1, -1], "above 0"), ([0.1, 1e300], "above 0")],
)
def test_invalid_sigmas_of_a_file(sigmas: list[float], message: str, tmp_path: Path) -> None:
    content = {"images": [], "categories": [{"id": 1, "name": "a", "keypoints": ["x", "y"], "sigmas": sigmas}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_coco(tmp_path / "set.json")


def test_sigmas_are_written_and_read(tmp_path: Path) -> None:
    import cv2

    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((*HW, 3), np.uint8))
    builder = TableBuilder(ClassMap.from_names(["a"]), tmp_path / "in", source="set", keypoint_schema=FIVE)
    builder.add_image("a.png", HW)
    builder.add_instance([0, 0, 9, 9], 1, keypoints=np.array([[1.5, 2, i % 3] for i in range(5)]))
    write_coco(builder.build(), tmp_path / "in" / "set.json")
    table = read_coco(tmp_path / "in" / "set.json")
    assert table.keypoint_schema == FIVE


@pytest.mark.parametrize(
    ("schema", "other", "expected"),
    [
        (None, None, ""),
        (FIVE, FIVE, ""),
        (FIVE, None, "5 keypoints instead of 0"),
        (FIVE, keypoint_schema([f"point {i}" for i in range(1, 6)]), ""),  # default names cannot be compared
        (keypoint_schema(["A", "b"]), keypoint_schema(["a", "B"]), ""),
        (keypoint_schema(["a", "b"]), keypoint_schema(["b", "a"]), "'a' in the position of 'b'"),
    ],
)
def test_difference(schema: KeypointSchema | None, other: KeypointSchema | None, expected: str) -> None:
    message = difference(schema, other)
    assert expected in message
    assert bool(expected) == bool(message)
