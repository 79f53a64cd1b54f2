"""Test keypoints from a COCO file to a trained model, its metrics, its files and its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg import Predictor, read
from detseg.annotations.builder import TableBuilder
from detseg.classes import ClassMap
from detseg.cli import main
from detseg.errors import DataError
from detseg.keypoints import keypoint_schema
from detseg.metrics import evaluate_files
from detseg.training.task_choice import pick_task

MODEL = ("--model", "keypointrcnn_mobilenet_v3_large_fpn_slim")
NAMES = ["head", "left_wing", "right_wing", "tail"]
# of a moth that faces up, relative to its length; left and right look the same: only head and tail distinguish them
SHAPE = np.array([[0.0, -0.5], [-0.45, -0.1], [0.45, -0.1], [0.0, 0.5]])


def write_moths(folder: Path, images: int, seed: int, *, size_hw: tuple[int, int] = (96, 128)) -> Path:
    """Write a COCO file of drawn moths: one or two per image, rotated, some with a point hidden or not labelled."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    annotations: list[dict[str, Any]] = []
    for image_id in range(images):
        image = np.full((*size_hw, 3), rng.integers(150, 220), np.uint8)
        for column in range(int(rng.integers(1, 3))):
            length, angle = float(rng.uniform(38, 56)), float(rng.uniform(-0.6, 0.6))
            middle = np.array([32 + 64 * column + rng.uniform(-3, 3), 48 + rng.uniform(-12, 12)])
            rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            points = middle + (SHAPE * length) @ rotation
            head, left, right, tail = (tuple(point.round().astype(int).tolist()) for point in points)
            cv2.fillConvexPoly(image, np.array([left, head, right]), (90, 60, 40))
            cv2.line(image, head, tail, (40, 30, 30), 5)
            cv2.circle(image, head, 5, (30, 120, 200), -1)
            cv2.circle(image, tail, 3, (200, 60, 60), -1)
            visibility = np.where(rng.random(4) < 0.1, rng.integers(0, 2, 4), 2)
            low, high = points.min(axis=0) - 4, points.max(axis=0) + 4
            keypoints = np.where(visibility[:, None] > 0, np.column_stack([points, visibility]), 0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 3,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float((high - low).prod() * 0.5),
                    "iscrowd": 0,
                    "keypoints": keypoints.ravel().tolist(),
                    "num_keypoints": int((visibility > 0).sum()),
                }
            )
        cv2.imwrite(str(folder / "images" / f"{image_id}.png"), image)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": size_hw[0], "width": size_hw[1]} for i in range(images)
        ],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "moth", "keypoints": NAMES, "skeleton": [[1, 4], [1, 2], [1, 3], [2, 3]]}],
    }
    (folder / "moths.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def moths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moths(tmp_path_factory.mktemp("moths"), 6, seed=0)


@pytest.fixture(scope="module")
def run(moths: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = train(moths, tmp_path_factory.mktemp("runs") / "run", *MODEL)
    return folder


def test_a_run_trains_and_evaluates_keypoints(run: Path, rows: Any) -> None:
    (row,) = rows(run)
    assert {"train_loss_keypoint", "val_loss_keypoint", "keypoints_AP", "keypoints_AP50", "bbox_AP"} <= set(row)
    assert np.isfinite(row["train_loss_keypoint"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) >= {"bbox", "keypoints"}
    assert "segm" not in metrics
    assert (run / "predictions.jpg").stat().st_size > 10_000
    assert 'task = "keypoints"' in (run / "config.toml").read_text()


def test_predictions_are_coco_results(run: Path, moths: Path, tmp_path: Path) -> None:
    results = json.loads((run / "predictions.json").read_text())
    assert results
    assert all(len(result["keypoints"]) == 12 and result["category_id"] == 3 for result in results)
    assert all(0 <= score <= 1 for result in results for score in result["keypoints"][2::3])
    content = json.loads((moths / "moths.json").read_text())
    with pytest.raises(DataError, match='add "sigmas" next to "keypoints"'):
        evaluate_files(moths / "moths.json", run / "predictions.json")
    content["categories"][0]["sigmas"] = [0.05] * 4
    image_ids = {result["image_id"] for result in results}
    content["images"] = [image for image in content["images"] if image["id"] in image_ids]
    (tmp_path / "ground_truth.json").write_text(json.dumps(content))
    stats = evaluate_files(tmp_path / "ground_truth.json", run / "predictions.json", max_dets=20).stats
    assert list(stats) == ["keypoints"]
    run_metrics = json.loads((run / "metrics.json").read_text())["keypoints"]
    assert stats["keypoints"]["AR"] == pytest.approx(run_metrics["AR"])


def test_evaluate_returns_the_metrics_of_the_run(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((run / "metrics.json").read_text())


def test_other_keypoints_are_an_error(
    run: Path, moths: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = json.loads((moths / "moths.json").read_text())
    content["categories"][0]["keypoints"] = ["head", "right_wing", "left_wing", "tail"]
    (tmp_path / "other.json").write_text(json.dumps(content))
    command = ["evaluate", str(run), str(tmp_path / "other.json"), "--images", str(moths / "images"), "--split", "all"]
    assert main([*command, "--device", "cpu"]) == 1
    assert "keypoint 'left_wing' in the position of 'right_wing'" in capsys.readouterr().err


def test_predict_writes_keypoints_with_their_names(run: Path, moths: Path, tmp_path: Path) -> None:
    command = ["predict", str(run), str(moths / "images"), "--output", str(tmp_path), "--device", "cpu"]
    assert main([*command, "--min-score", "0.01"]) == 0
    results = json.loads((tmp_path / "predictions.json").read_text())
    predictor = Predictor(run, "cpu")
    assert predictor.task == "keypoints"
    assert predictor.keypoints == keypoint_schema(NAMES, [(0, 3), (0, 1), (0, 2), (1, 2)])
    prediction = predictor(moths / "images" / "0.png")
    first = [result["keypoints"] for result in results if result["file_name"] == "0.png"]
    np.testing.assert_allclose(np.array(first).reshape(-1, 4, 3), prediction.keypoints, atol=1e-4)  # type: ignore[union-attr]
    (category,) = json.loads((tmp_path / "images.json").read_text())["categories"]
    assert category["keypoints"] == NAMES
    assert category["skeleton"] == [[1, 4], [1, 2], [1, 3], [2, 3]]
    assert len(list((tmp_path / "images").iterdir())) == 6


# Choice of the task


def table(labelled: bool, *, masks: bool = False, crowd: bool = False) -> Any:
    builder = TableBuilder(
        ClassMap.from_names(["a"]), Path("/data"), source="set", keypoint_schema=keypoint_schema("xy")
    )
    builder.add_image("a.jpg", (40, 60))
    outline = [np.array([[2.0, 2], [12, 2], [12, 12], [2, 12]])] if masks else None
    points = np.array([[3.0, 3, 2 * labelled], [0, 0, 0]])
    builder.add_instance([2, 2, 10, 10], 1, segmentation=outline, keypoints=points, iscrowd=crowd)
    builder.add_instance([2, 2, 10, 10], 1, segmentation=outline)
    return builder.build()


@pytest.mark.parametrize(
    ("data", "task", "expected"),
    [
        (table(True), "keypoints", "there are keypoints"),
        (table(True, masks=True), "keypoints", "--task segment trains on the masks instead"),
        (table(False), "detect", "the most"),
        (table(False, masks=True), "segment", "the most"),
        (table(True, crowd=True), "detect", "the most"),  # keypoints of a crowd are not trained on
    ],
)
def test_keypoints_have_priority(data: Any, task: str, expected: str) -> None:
    picked, reason = pick_task(None, None, data)
    assert picked == task
    assert expected in reason


def test_data_without_keypoints_is_an_error() -> None:
    with pytest.raises(DataError, match=r"cannot be used for keypoints.*there are no keypoints; possible: detect"):
        pick_task("keypoints", None, table(False))
    assert pick_task("detect", None, table(True))[0] == "detect"


def test_the_keypoints_and_their_pairs_are_printed(
    moths: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["inspect", str(moths), "--output", str(tmp_path)]) == 0
    assert (tmp_path / "sheet.jpg").is_file()
    from detseg.annotations.from_options import describe_table

    assert "4 keypoints: head, left_wing, right_wing, tail; 1 pairs are swapped by a horizontal flip" in "\n".join(
        describe_table(read(moths))
    )


@pytest.mark.slow
def test_keypoints_are_learned(train: Any, rows: Any, tmp_path: Path) -> None:
    """From random weights, on drawn moths: OKS AP far above that of a model trained with almost no learning rate."""
    data = write_moths(tmp_path / "data", 60, seed=1)
    options = (*MODEL, "--batch-size", "4", "--image-size", "96", "--augment", "flip", "--no-val-loss")
    trained = rows(train(data, tmp_path / "learned", *options, "--epochs", "12", "--lr", "1e-3"))
    untrained = rows(train(data, tmp_path / "idle", *options, "--epochs", "1", "--lr", "1e-9"))
    assert trained[-1]["keypoints_AP"] > 0.5, trained[-1]
    assert untrained[-1]["keypoints_AP"] < 0.02, untrained[-1]
