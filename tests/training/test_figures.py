"""Figures for notebooks and for ``--figures``, and the result images of a run, on small data without a network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg import Predictor, read
from detseg.annotations.table import AnnotationTable
from detseg.cli import main
from detseg.datasets import Dataset, data_loader, preset
from detseg.errors import DataError
from detseg.preprocess import Preprocessing
from detseg.structures import ClassPrediction, Prediction
from detseg.training import figures
from detseg.training.result_images import _shown_rows
from tests.test_readme import TOOLS, blocks

pytest.importorskip("matplotlib")

NAMES = {"pr", "confusion", "predictions", "mistakes"}


@pytest.fixture(scope="module")
def table(parts: Path) -> AnnotationTable:
    return read(parts)


@pytest.fixture(scope="module")
def predictions(table: AnnotationTable) -> dict[int, Prediction]:
    """Perfect, but that the first image is without any."""
    result = {}
    for row, record in enumerate(table):
        boxes = record.boxes_xywh[: 0 if row == 0 else None].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels, scores = record.labels[: len(boxes)], np.full(len(boxes), 0.9, np.float32)
        result[record.image_id] = Prediction(record.size_hw, boxes, labels, scores)
    return result


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    folder = tmp_path_factory.mktemp("colours")
    for name, colour in (("red", (0, 0, 200)), ("blue", (200, 0, 0))):
        (folder / name).mkdir()
        for i in range(6):
            cv2.imwrite(str(folder / name / f"{i}.png"), np.full((40, 50, 3), colour, np.uint8))
    return read(folder)


def captions(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_mistakes_of_a_detector(table: AnnotationTable, predictions: dict[int, Prediction]) -> None:
    figure = figures.show_mistakes(table, predictions)
    objects = len(table[0])
    assert captions(figure) == [f"{objects} objects, {objects} missed", "prediction, no false alarm"]
    title = " ".join(figure.get_suptitle().split())
    assert title == f"misses and false alarms in 1 image of {len(table)}, the worst first"
    perfect = {image_id: prediction for image_id, prediction in predictions.items() if len(prediction)}
    assert figures.show_mistakes(table, perfect).get_suptitle() == f"no mistake in {len(perfect)} images"


def test_predictions_pr_and_confusion(table: AnnotationTable, predictions: dict[int, Prediction]) -> None:
    assert len(figures.show_predictions(table, predictions, 3).axes) == 6
    names = table.class_map.names
    curves = figures.pr_curves(table, predictions)
    assert {curve.class_name for curve in curves} <= set(names)
    missed = {names[label - 1] for label in table[0].labels}
    assert all((curve.ap < 1) == (curve.class_name in missed) for curve in curves)
    assert "objects correct" in figures.plot_confusion(table, predictions).get_suptitle()


def test_mistakes_of_a_classifier(colours: AnnotationTable) -> None:
    rows = {record.image_id: int(record.class_index[0]) for record in colours}
    sure = {image_id: [0.9, 0.1] if index == 0 else [0.3, 0.7] for image_id, index in rows.items()}
    wrong = list(rows)[3]
    sure[wrong] = sure[wrong][::-1]
    predictions = {image_id: ClassPrediction(np.array(values, np.float32)) for image_id, values in sure.items()}
    names = list(colours.class_map.names)
    true, other = names[rows[wrong]], names[1 - rows[wrong]]
    figure = figures.show_mistakes(colours, predictions)
    score = max(sure[wrong])
    assert captions(figure) == [f"true: {true}\npredicted: {other} ({score:.2f})"]
    assert figure.get_suptitle() == "wrong classes in 1 image of 12"
    assert figures.plot_confusion(colours, predictions).get_suptitle() == "11 of 12 correct (91.7%)"
    assert captions(figures.show_predictions(colours, predictions, 2))[0].endswith(", correct")
    row = next(row for row in range(len(colours)) if colours[row].image_id == wrong)
    assert _shown_rows(colours, predictions)[0] == row, "predictions.jpg shows the mistakes first"
    assert len(_shown_rows(colours, predictions)) == 8
    assert _shown_rows(colours, {}) == list(range(8)), "control: as before, the first of each class"


def test_samples_and_batches(table: AnnotationTable) -> None:
    dataset = Dataset(table, Preprocessing(96, 160), task="segment", augment=preset("light", "segment"))
    figure = figures.show_samples(dataset, 4)
    assert len(figure.axes) == 4
    assert " ".join(figure.get_suptitle().split()) == "images as the network gets them, with augmentation"
    batch = figures.show_batch(data_loader(dataset, 3))
    assert len(batch.axes) == 3
    assert "padding" in batch.get_suptitle()
    lists = [dataset[0][0]], [dataset[0][1]]
    assert len(figures.show_batch(lists, table.class_map).axes) == 1
    with pytest.raises(DataError, match=r"pass class_map=table\.class_map"):
        figures.show_batch(lists)
    with pytest.raises(DataError, match="attribute class_map"):
        figures.show_samples([dataset[0]])
    with pytest.raises(DataError, match="pass a run folder"):
        figures.plot_history()


@pytest.mark.slow
def test_figures_of_a_run(
    parts: Path, table: AnnotationTable, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    run = train(parts, tmp_path / "runs" / "cells", "--figures", "--epochs", "2")
    assert {path.stem for path in (run / "figures").iterdir()} == NAMES | {"history", "samples", "batch"}
    assert main(["evaluate", str(run), "--figures", "--output", str(tmp_path / "e")]) == 0
    assert {path.stem for path in (tmp_path / "e" / "figures").iterdir()} == NAMES
    for name in NAMES:
        pixels = [cv2.imread(str(folder / "figures" / f"{name}.png")) for folder in (run, tmp_path / "e")]
        assert pixels[0].shape[1] == 960
        assert (pixels[0] == pixels[1]).all(), f"{name}: of the same weights"
    (tmp_path / "runs" / "other").mkdir()
    shutil.copy(run / "metrics.jsonl", tmp_path / "runs" / "other")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(TOOLS, "figures", "python")
    preprocessing = Predictor(run).preprocessing
    names: dict[str, Any] = {"table": table, "dataset": Dataset(table, preprocessing, task="segment")}
    exec(compile(code, "tools/README.md", "exec"), names)
    assert len(names["figures"]) == 6
    assert len(names["figures"][0].axes) == 3, "two runs"
