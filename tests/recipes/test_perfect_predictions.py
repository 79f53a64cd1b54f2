"""Perfect predictions have AP 1.0 in every evaluation path, from predictions or from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detseg import Dataset, read, split
from detseg.annotations import AnnotationTable
from detseg.boxes import xywh_to_xyxy
from detseg.cli import main
from detseg.masks import segmentation_to_rle
from detseg.metrics import CocoEvaluator
from detseg.preprocess import Preprocessing
from detseg.structures import Prediction, RawPrediction
from detseg.synthetic.demo.render import demo_folder


@pytest.fixture(scope="module")
def val() -> AnnotationTable:
    return split(read(demo_folder()))["val"]


def perfect_prediction(record: Any) -> Prediction:
    """The ground truth of the record as predictions, in original pixels."""
    return Prediction(
        record.size_hw,
        xywh_to_xyxy(record.boxes_xywh).astype(np.float32),
        record.labels.astype(np.int64),
        np.linspace(1, 0.5, len(record)).astype(np.float32),
        [segmentation_to_rle(segmentation, record.size_hw) for segmentation in record.segmentations],
    )


def test_original_pixels_and_results_file(
    val: AnnotationTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = CocoEvaluator(val, iou_types=("bbox", "segm"))
    assert evaluator.compute().scalars()["segm_AP"] == 0.0  # control: no predictions yet
    for record in val:
        evaluator.update([{"image_id": record.image_id}], [perfect_prediction(record)])
    stats = evaluator.compute().scalars()
    assert stats["bbox_AP"] == pytest.approx(1)
    assert stats["segm_AP"] == pytest.approx(1)

    results = evaluator.results()
    ground_truth = demo_folder() / "instances_val.json"
    command = [
        "evaluate",
        "--predictions",
        str(tmp_path / "results.json"),
        "--ground-truth",
        str(ground_truth),
        "--json",
    ]
    for kind in ("bbox", "segm"):
        (tmp_path / "results.json").write_text(json.dumps(results))
        assert main([*command, "--iou-type", kind]) == 0
        assert json.loads(capsys.readouterr().out)[kind]["AP"] == pytest.approx(1)
        (tmp_path / "results.json").write_text(json.dumps(results[1:]))  # control: one object is missed
        assert main([*command, "--iou-type", kind]) == 0
        assert json.loads(capsys.readouterr().out)[kind]["AP"] < 1


@pytest.mark.parametrize("image_size", [96, 256])
def test_targets_at_the_network_input_size(val: AnnotationTable, image_size: int) -> None:
    preprocessing = Preprocessing(min_size=image_size, max_size=2 * image_size)
    dataset = Dataset(val, preprocessing, task="detect")
    geometries = {record.image_id: dataset.geometry(row) for row, record in enumerate(val)}
    evaluators = [CocoEvaluator(val, geometry=geometries.__getitem__) for _ in range(2)]
    for row in range(len(dataset)):
        _, target = dataset[row]
        boxes, labels = target["boxes"].numpy(), target["labels"].numpy()
        scores = np.linspace(1, 0.5, len(labels)).astype(np.float32)
        for evaluator, shift in zip(evaluators, (0, 3), strict=True):
            evaluator.update([target], [RawPrediction((boxes + shift).astype(np.float32), labels, scores)])
    assert evaluators[0].compute().best() == pytest.approx(1)
    assert evaluators[1].compute().best() < 0.9  # control: boxes shifted by three pixels
