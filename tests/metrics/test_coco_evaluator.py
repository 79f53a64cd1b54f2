"""COCO evaluator: perfect predictions have AP 1 for unusual ground truths; unusual input is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.boxes import xywh_to_xyxy
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.masks import mask_to_rle, rasterize
from detseg.metrics import CocoEvaluator, CocoMetrics, GroundTruth, evaluate_files
from detseg.metrics.matching import gt_index, match, summarize
from detseg.preprocess import Geometry
from detseg.structures import Prediction, RawPrediction

HW = (100, 120)
Instance = tuple[list[float], int, dict[str, Any]]


def table_of(
    images: list[list[Instance]],
    *,
    ids: list[int] | None = None,
    classes: tuple[str, ...] = ("cat", "dog"),
    category_ids: tuple[int, ...] = (),
    orientation: int = 1,
    masks: bool = False,
    schema: KeypointSchema | None = None,
) -> AnnotationTable:
    """A table of images with HW upright pixels; with ``masks`` each object is a filled box."""
    builder = TableBuilder(ClassMap(classes, category_ids), ".", source="ground_truth.json", keypoint_schema=schema)
    stored = HW if orientation < 5 else HW[::-1]
    for row, instances in enumerate(images):
        image_id = None if ids is None else ids[row]
        builder.add_image(
            f"{row}.jpg", stored, image_id=image_id, orientation=orientation, stored_frame=orientation > 1
        )
        for box, label, options in instances:
            rectangle = filled_box(box) if masks else None
            builder.add_instance(box, label, **{"segmentation": rectangle, **options})
    return builder.build()


def filled_box(box: list[float]) -> dict[str, Any]:
    mask = np.zeros(HW, np.uint8)
    x, y, w, h = (round(number) for number in box)
    mask[y : y + max(h, 1), x : x + max(w, 1)] = 1
    return mask_to_rle(mask)


def perfect(table: AnnotationTable, score: float = 0.9) -> dict[int, Prediction]:
    """Predictions that equal the ground truth, without crowds and ignored instances."""
    predictions = {}
    for record in table:
        keep = ~(record.iscrowd | record.ignore)
        rles = [
            mask_to_rle(rasterize(segmentation, record.size_hw, record.size_hw))
            for segmentation, selected in zip(record.segmentations, keep, strict=True)
            if selected and segmentation is not None
        ]
        predictions[record.image_id] = Prediction(
            record.size_hw,
            xywh_to_xyxy(record.boxes_xywh[keep]).astype(np.float32),
            record.labels[keep],
            np.full(int(keep.sum()), score, np.float32),
            rles if len(rles) == keep.sum() else None,
            None if record.keypoints is None else record.keypoints[keep].astype(np.float32),
        )
    return predictions


def updated(evaluator: CocoEvaluator, outputs: dict[int, Any]) -> CocoEvaluator:
    for image_id, output in outputs.items():
        evaluator.update([{"image_id": image_id}], [output])
    return evaluator


SQUARE: Instance = ([10.0, 10.0, 30.0, 30.0], 1, {})
AWKWARD: dict[str, dict[str, Any]] = {
    "one object": {"images": [[SQUARE]]},
    "annotation id 0": {"images": [[([10, 10, 30, 30], 1, {"annotation_id": 0})], [SQUARE]]},
    "repeated annotation ids": {
        "images": [[([10, 10, 20, 20], 1, {"annotation_id": 7}), ([50, 50, 20, 20], 1, {"annotation_id": 7})]] * 3
    },
    "150 objects in one image": {
        "images": [[([1.0 + 7 * (i % 15), 1.0 + 9 * (i // 15), 6.0, 8.0], 1, {}) for i in range(150)]]
    },
    "crowd over an object": {"images": [[SQUARE, ([0, 0, 120, 100], 1, {"iscrowd": True})]]},
    "ignored object": {"images": [[SQUARE, ([60, 10, 30, 30], 1, {"ignore": True})]]},
    "empty images": {"images": [[], [SQUARE], []]},
    "image ids with gaps, 0 and below 0": {"images": [[SQUARE], [SQUARE], [SQUARE]], "ids": [-4, 0, 2**62 + 1]},
    "category ids with gaps and 0": {"images": [[SQUARE, ([50, 50, 9, 9], 2, {})]], "category_ids": (90, 0)},
    "ids in descending order": {"images": [[SQUARE], []], "ids": [9, 3], "category_ids": (5, 2)},
    "a class without objects": {"images": [[SQUARE]], "classes": ("cat", "never", "seen")},
    "tiny boxes": {"images": [[([99.3, 50.1, 0.5, 0.25], 1, {}), ([1.0, 1.0, 0.125, 60.0], 2, {})]]},
    "boxes at the border": {"images": [[([0, 0, 120, 100], 1, {}), ([119, 99, 1, 1], 2, {})]]},
    "the same box twice": {"images": [[SQUARE, SQUARE]]},
    "the same box with two labels": {"images": [[SQUARE, (SQUARE[0], 2, {})]]},
    "areas of 0": {"images": [[([10, 10, 30, 30], 1, {"area": 0.0})]]},
    "upright images of rotated files": {"images": [[SQUARE], [([90, 70, 20, 20], 2, {})]], "orientation": 6},
}


@pytest.mark.parametrize("iou_types", [("bbox",), ("segm",), ("bbox", "segm")])
@pytest.mark.parametrize("name", AWKWARD)
def test_perfect_predictions_have_ap_1(name: str, iou_types: tuple[str, ...]) -> None:
    table = table_of(**AWKWARD[name], masks=True)
    metrics = updated(CocoEvaluator(table, iou_types=iou_types), perfect(table)).compute()
    for iou_type in iou_types:
        stats = metrics.stats[iou_type]
        assert (stats["AP"], stats["AP50"], stats["AP75"]) == pytest.approx((1.0, 1.0, 1.0))
        assert len(stats) == 12
    assert metrics.best() == pytest.approx(1.0)
    assert (metrics.images, len(metrics.notes)) == (len(table), int("150" in name) * len(iou_types))


@pytest.mark.parametrize("cap", [100, None])
def test_more_objects_than_the_limit_of_coco(cap: int | None) -> None:
    """With 150 objects in an image a perfect detector has AP 0.663 in COCO; here the limit adapts, with a note."""
    table = table_of(**AWKWARD["150 objects in one image"])
    metrics = updated(CocoEvaluator(table, max_dets=cap), perfect(table)).compute()
    assert metrics.stats["bbox"]["AP"] == pytest.approx(1.0 if cap is None else 0.663, abs=0.001)
    assert metrics.max_dets == {"bbox": cap or 150}
    expected_note = "up to 150 detections" if cap is None else "pass --max-dets 150"
    assert [expected_note in note for note in metrics.notes] == [True]
    assert list(metrics.stats["bbox"])[6:9] == ["AR1", "AR10", f"AR{cap or 150}"]


def test_limit_is_per_class_as_in_coco() -> None:
    boxes = [([1.0 + 7 * (i % 15), 1.0 + 9 * (i // 15), 6.0, 8.0], 1 + i % 2, {}) for i in range(150)]
    table = table_of([boxes])
    metrics = updated(CocoEvaluator(table), perfect(table)).compute()
    assert metrics.max_dets == {"bbox": 100}
    assert metrics.best() == pytest.approx(1.0)


@pytest.mark.parametrize("outputs", ["never updated", "empty predictions"])
def test_without_detections_ap_is_0(outputs: str) -> None:
    """pycocotools raises IndexError."""
    table = table_of([[SQUARE], []], masks=True)
    empty = Prediction(HW, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), [])
    predictions = {} if outputs == "never updated" else {1: empty, 2: empty}
    evaluator = updated(CocoEvaluator(table, iou_types=["bbox", "segm"]), predictions)
    metrics = evaluator.compute()
    assert metrics.stats["bbox"]["AP"] == metrics.stats["segm"]["AP"] == 0.0
    assert evaluator.images_seen == len(predictions)
    assert any("2 of 2 images have no predictions" in note for note in metrics.notes) == (not predictions)


def test_without_objects_metrics_are_not_defined() -> None:
    """An empty size range is -1 in COCO; here it is None in JSON, and a text in the lines."""
    table = table_of([[], []])
    metrics = updated(CocoEvaluator(table), perfect(table)).compute()
    assert set(metrics.stats["bbox"].values()) == {None}
    assert metrics.best() == 0.0
    assert json.loads(json.dumps(metrics.to_dict(), allow_nan=False))["bbox"]["AP"] is None
    assert not any("-1" in line or "None" in line for line in (*metrics.lines(), *metrics.coco_lines()))
    assert metrics.lines()[0].startswith("box AP undefined, box AP50 undefined (2 images, 0 objects)")
    assert all(line.endswith("= no such objects") for line in metrics.coco_lines()[1:])
    assert CocoEvaluator(GroundTruth("nothing", {}, (), (), ())).compute().stats["bbox"]["AP"] is None


def test_table_and_json() -> None:
    table = table_of([[SQUARE, ([50, 50, 8, 8], 2, {})], [SQUARE]], classes=("cat", "dog", "absent"), masks=True)
    predictions = perfect(table)
    empty = (getattr(predictions[2], name)[:0] for name in ("boxes", "labels", "scores"))
    predictions[2] = Prediction(HW, *empty, [])
    metrics = updated(CocoEvaluator(table, iou_types=["segm", "bbox"]), predictions).compute()
    assert metrics.lines()[0] == "box AP 0.752, box AP50 0.752, mask AP 0.752, mask AP50 0.752 (2 images, 3 objects)"
    assert CocoMetrics.from_dict(json.loads(json.dumps(metrics.to_dict()))) == metrics
    lines = metrics.coco_lines()
    assert lines[0] == "boxes (bbox): 2 images, 3 objects"
    assert lines[1] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.752"
    assert lines[3] == " Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ] = 0.752"
    assert lines[6] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = no such objects"
    assert lines[7] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.750"
    assert metrics.lines()[-4:] == [
        "class   objects     box AP   box AP50    mask AP  mask AP50",
        "cat           2      0.505      0.505      0.505      0.505",
        "dog           1      1.000      1.000      1.000      1.000",
        "absent        0",
    ]
    value = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert value["images"] == 2
    assert value["bbox"]["AP_large"] is None
    assert value["segm"]["per_class"]["cat"] == {
        "AP": pytest.approx(0.505, abs=1e-3),
        "AP50": pytest.approx(0.505, abs=1e-3),
        "objects": 2,
    }
    assert value["segm"]["per_class"]["absent"] == {"AP": None, "AP50": None, "objects": 0}
    assert metrics.scalars()["segm_AP50"] == metrics.stats["segm"]["AP50"]


def test_repeated_images_are_ignored() -> None:
    """DistributedSampler fills the last batch with repeated images. The control evaluates them twice."""
    rng = np.random.default_rng(0)
    boxes = [[rng.uniform(0, 40), rng.uniform(0, 40), 20.0, 20.0] for _ in range(21)]
    table = table_of([[(box, 1, {}), ([*box[:2], 50.0, 50.0], 1, {})] for box in boxes])
    predictions = perfect(table)
    evaluator = updated(CocoEvaluator(table), predictions)
    expected = evaluator.compute().to_dict()
    updated(evaluator, {image_id: predictions[image_id] for image_id in (1, 2, 3)})
    repeated = evaluator.compute()
    assert (evaluator.repeats, evaluator.images_seen) == (3, 21)
    assert {**repeated.to_dict(), "notes": []} == expected
    assert any("3 predictions ignored" in note for note in repeated.notes)

    detections = evaluator._detections("bbox")
    padded = [{**d, "id": i} for i, d in enumerate(detections + [d for d in detections if d["image_id"] <= 3], 1)]
    padded_ap = summarize(
        match(evaluator.ground_truth, gt_index(evaluator.ground_truth, "bbox"), padded, "bbox", 100), "bbox"
    )
    assert padded_ap["AP"] < expected["bbox"]["AP"] - 0.02  # type: ignore[operator]


def test_reset_and_repeated_compute() -> None:
    table = table_of([[SQUARE]])
    evaluator = updated(CocoEvaluator(table), perfect(table))
    assert evaluator.compute().to_dict() == evaluator.compute().to_dict()
    evaluator.reset()
    assert (evaluator.images_seen, evaluator.compute().best(), evaluator.results()) == (0, 0.0, [])


def test_inputs_are_not_changed_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """pycocotools changes its input list and prints."""
    table = table_of([[SQUARE, ([60, 10, 30, 30], 2, {})]], masks=True)
    output = {
        "boxes": torch.tensor([[10.0, 10, 40, 40], [60, 10, 90, 40]]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.5, 0.9]),
        "masks": torch.rand(2, 1, *HW),
    }
    before = {name: tensor.clone() for name, tensor in output.items()}
    boxes = table.boxes_xywh.copy()
    evaluator = updated(CocoEvaluator(table, iou_types=["bbox", "segm"]), {1: output})
    evaluator.compute()
    evaluator.results()
    assert capfd.readouterr() == ("", "")
    assert all(torch.equal(output[name], before[name]) for name in before)
    np.testing.assert_array_equal(table.boxes_xywh, boxes)


def torchvision_output(prediction: Prediction) -> dict[str, torch.Tensor]:
    assert prediction.rles is not None
    return {
        "boxes": torch.from_numpy(prediction.boxes),
        "labels": torch.from_numpy(prediction.labels),
        "scores": torch.from_numpy(prediction.scores).requires_grad_(),
        "masks": torch.from_numpy(prediction.masks()[:, None] * np.float32(0.6)),
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_torchvision_dicts_equal_predictions(count: int) -> None:
    boxes = [[3.0, 5.0, 20.0, 20.0], [40.0, 50.0, 30.0, 40.0], [0.0, 0.0, 120.0, 100.0]][:count]
    table = table_of([[(box, 1, {}) for box in boxes]], masks=True)
    prediction = perfect(table)[1]
    evaluators = [CocoEvaluator(table, iou_types=["bbox", "segm"]) for _ in range(4)]
    dict_output = torchvision_output(prediction)
    evaluators[0].update([{"image_id": torch.tensor(1)}], [prediction])
    evaluators[1].update([{"image_id": torch.tensor([1])}], [dict_output])
    evaluators[2].update([{"image_id": 1}], [{**dict_output, "masks": dict_output["masks"][:, 0] > 0.5}])
    evaluators[3].update([{"image_id": 1}], [{**dict_output, "scores": dict_output["scores"].bfloat16()}])
    results = [evaluator.results() for evaluator in evaluators]
    assert results[0] == results[1] == results[2]
    assert len(results[3]) == count
    assert len({json.dumps(evaluator.compute().to_dict()) for evaluator in evaluators}) == 1


def test_network_pixels_need_a_geometry() -> None:
    table = table_of([[([20.0, 20.0, 60.0, 40.0], 1, {})]])
    raw = RawPrediction(np.array([[10, 10, 40, 30]], np.float32), np.array([1]), np.array([0.9], np.float32))
    evaluator = updated(CocoEvaluator(table, geometry={1: Geometry(HW, (50, 60))}.__getitem__), {1: raw})
    assert evaluator.compute().best() == pytest.approx(1.0)
    with pytest.raises(DataError, match="geometry"):
        updated(CocoEvaluator(table), {1: raw})


def single_box(**changes: Any) -> Prediction:
    values = {
        "size_hw": HW,
        "boxes": np.array([[10, 10, 40, 40]], np.float32),
        "labels": np.array([1]),
        "scores": np.array([0.9], np.float32),
    }
    return Prediction(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.array([np.nan], np.float32)}, r"image 1: scores\[0\] is nan"),
        ({"boxes": np.array([[0, 0, np.inf, 5]], np.float32)}, r"image 1: boxes\[0, 2\] is inf"),
        ({"labels": np.array([0])}, r"label 0 is predicted, but labels are 1\.\.2"),
        ({"labels": np.array([3])}, r"label 3"),
        ({"labels": np.array([1, 2])}, "differ in length"),
        ({"size_hw": (120, 100)}, "120 x 100 pixels"),
    ],
)
def test_invalid_outputs(changes: dict[str, Any], message: str) -> None:
    """pycocotools accepts NaN scores silently: with one in ten AP is still 1.000."""
    with pytest.raises(DataError, match=message):
        updated(CocoEvaluator(table_of([[SQUARE]])), {1: single_box(**changes)})


def test_missing_fields_are_errors() -> None:
    table = table_of([[SQUARE]])
    with pytest.raises(DataError, match="no masks"):
        updated(CocoEvaluator(table, iou_types=["segm"]), {1: single_box()})
    with pytest.raises(DataError, match="has no scores"):
        updated(CocoEvaluator(table), {1: {"boxes": np.zeros((0, 4)), "labels": np.zeros(0)}})
    with pytest.raises(DataError, match="no segmentation"):
        CocoEvaluator(table, iou_types=["segm"]).compute()
    with pytest.raises(DataError, match="choose one or more of bbox"):
        CocoEvaluator(table, iou_types=["box"])
    with pytest.raises(DataError, match="must be at least 1"):
        CocoEvaluator(table, max_dets=0).compute()


def test_error_lists_unknown_image_ids() -> None:
    evaluator = CocoEvaluator(table_of([[SQUARE], []]))
    with pytest.raises(
        DataError, match=r"image ids 3, 4, 5, 6, 7, \.\.\. are not in the ground truth ground_truth\.json"
    ):
        evaluator.update([{"image_id": i} for i in range(1, 11)], [single_box()] * 10)
    with pytest.raises(DataError, match="2 targets but 1 outputs"):
        evaluator.update([{"image_id": 1}, {"image_id": 2}], [single_box()])
    assert evaluator.images_seen == 0


def test_results_use_the_ids_and_the_frame_of_the_data_set() -> None:
    """For a file with an EXIF rotation that is annotated in stored pixels, results are in stored pixels."""
    upright = table_of([[SQUARE], []], ids=[42, 7], category_ids=(90, 3), masks=True)
    results = updated(CocoEvaluator(upright, iou_types=["segm"]), perfect(upright)).results()
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in results] == [(42, 90, [10.0, 10.0, 30.0, 30.0])]
    assert results[0]["score"] == pytest.approx(0.9)
    assert isinstance(results[0]["segmentation"]["counts"], str)
    assert json.loads(json.dumps(results)) == results

    rotated = table_of([[SQUARE]], orientation=6, masks=True)  # displayed rotated clockwise: x = H - y, y = x
    (result,) = updated(CocoEvaluator(rotated, iou_types=["bbox", "segm"]), perfect(rotated)).results()
    assert result["bbox"] == [10.0, HW[1] - 40.0, 30.0, 30.0]
    assert result["segmentation"]["size"] == [HW[1], HW[0]]
    assert result["image_id"] == 1


def test_results_file_has_the_same_metrics(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = [
        [
            ([*rng.integers(0, 60, 2).tolist(), *rng.integers(10, 40, 2).tolist()], int(rng.integers(1, 3)), {})
            for _ in range(4)
        ]
        for _ in range(5)
    ]
    table = table_of(images, category_ids=(7, 3))
    predictions = {}
    for image_id, prediction in perfect(table).items():
        moved = np.clip(prediction.boxes + rng.integers(-6, 7, prediction.boxes.shape), 0, 99).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2])
        predictions[image_id] = Prediction(HW, moved, prediction.labels, rng.random(len(moved)).astype(np.float32))
    evaluator = updated(CocoEvaluator(table), predictions)
    ground_truth = evaluator.ground_truth
    annotations = [
        {
            "id": i,
            "image_id": a.image_id,
            "category_id": ground_truth.category_ids[a.label - 1],
            "bbox": a.box,
            "area": a.area,
        }
        for i, a in enumerate(ground_truth.instances)
    ]
    content = {
        "images": [{"id": i} for i in ground_truth.sizes],
        "categories": [
            {"id": i, "name": n} for i, n in zip(ground_truth.category_ids, ground_truth.class_names, strict=True)
        ],
        "annotations": annotations,
    }
    (tmp_path / "ground_truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(evaluator.results()))
    metrics = evaluate_files(tmp_path / "ground_truth.json", tmp_path / "results.json")
    assert metrics.stats == evaluator.compute().stats
    assert metrics.per_class == evaluator.compute().per_class
    assert 0 < metrics.best() < 1


def test_keypoints_with_own_sigmas() -> None:
    schema = KeypointSchema(("nose", "tail"), sigmas=(0.05, 0.1))
    points = np.array([[12.0, 12, 2], [30, 30, 1]])
    unlabelled = np.zeros((2, 3))
    table = table_of(
        [[(SQUARE[0], 1, {"keypoints": points}), ([60, 60, 20, 20], 1, {"keypoints": unlabelled})]], schema=schema
    )
    metrics = updated(CocoEvaluator(table, iou_types=["keypoints", "bbox"]), perfect(table)).compute()
    assert list(metrics.stats) == ["bbox", "keypoints"]
    assert metrics.stats["keypoints"]["AP"] == pytest.approx(1.0)
    assert metrics.best() == metrics.stats["keypoints"]["AP"]
    assert any("keypoints (OKS)" in line for line in metrics.coco_lines())
    with pytest.raises(DataError, match="no keypoints"):
        updated(CocoEvaluator(table, iou_types=["keypoints"]), {1: single_box()})
    without = table_of([[(SQUARE[0], 1, {"keypoints": points})]], schema=KeypointSchema(("nose", "tail")))
    assert updated(CocoEvaluator(without), perfect(without)).compute().best() == pytest.approx(1.0)
    with pytest.raises(DataError, match="OKS sigmas"):
        CocoEvaluator(without, iou_types=["keypoints"]).compute()


def test_more_than_255_masks_in_an_image() -> None:
    """pycocotools 2.0.11 overflows when it computes the areas of more than 255 masks at once."""
    builder = TableBuilder(ClassMap.from_names(["dot"]), Path("/data"), source="many")
    builder.add_image("a.jpg", (40, 400))
    rles = []
    for i in range(300):
        mask = np.zeros((40, 400), np.uint8)
        mask[(i // 100) * 10 : (i // 100) * 10 + 3, (i % 100) * 4 : (i % 100) * 4 + 3] = 1
        rles.append(mask_to_rle(mask))
        builder.add_instance(None, 1, segmentation=rles[-1])
    table = builder.build()
    boxes = xywh_to_xyxy(table.boxes_xywh).astype(np.float32)
    scores = np.linspace(1, 0.5, 300, dtype=np.float32)
    evaluator = CocoEvaluator(table, iou_types=("bbox", "segm"))
    evaluator.update([{"image_id": 1}], [Prediction((40, 400), boxes, np.ones(300, np.int64), scores, rles)])
    metrics = evaluator.compute()
    assert metrics.stats["segm"]["AP"] == metrics.stats["bbox"]["AP"] == 1.0
