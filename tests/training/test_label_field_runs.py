"""Test several labels per image with the commands: colour and shape of drawn images, from one CSV file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationTable
from detseg.annotations.builder import TableBuilder
from detseg.annotations.from_options import class_counts
from detseg.annotations.obstacles import obstacles
from detseg.checkpoints import load
from detseg.classes import ClassMap, LabelField, joined
from detseg.cli import main
from detseg.errors import DataError
from detseg.inference.evaluation import match_classes
from detseg.inference.predictor import Predictor
from detseg.structures import FieldPredictions
from detseg.training.task_choice import pick_task

COLOURS = {"red": (220, 60, 60), "green": (60, 200, 60), "blue": (70, 70, 220)}
SHAPES = ("disc", "ring", "square")
OPTIONS = (
    *("--model", "mobilenet_v3_small", "--weights", "none", "--image-size", "40", "--batch-size", "12"),
    *("--epochs", "1", "--augment", "flip", "--workers", "0", "--device", "cpu"),
)


def draw_set(folder: Path, number: int, *, shuffled: bool = False, blanks: bool = False) -> Path:
    """Draw ``number`` images of 48 x 48 and write labels.csv; ``shuffled``: permute the column shape."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = []
    for index in range(number):
        colour, shape = list(COLOURS)[index % 3], SHAPES[index // 3 % 3]
        image = generator.integers(0, 90, (48, 48, 3), dtype=np.uint8)
        x, y, size = (int(value) for value in generator.integers((18, 18, 9), (30, 30, 15)))
        if shape == "square":
            cv2.rectangle(image, (x - size, y - size), (x + size, y + size), COLOURS[colour], -1)
        else:
            cv2.circle(image, (x, y), size, COLOURS[colour], -1 if shape == "disc" else 4)
        cv2.imwrite(str(folder / f"{index}.png"), image[..., ::-1])
        rows.append([f"{index}.png", colour, shape])
    if shuffled:
        for row, shape in zip(rows, generator.permutation([row[2] for row in rows]).tolist(), strict=True):
            row[2] = shape
    if blanks:
        rows[0][1] = rows[4][2] = ""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["filename", "colour", "shape"], *rows])
    return folder


def contents(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_set(tmp_path_factory.mktemp("fields") / "data", 27, blanks=True)


def test_from_the_csv_file_to_predictions(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(drawn), "--output", str(run), *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert "task classify" in printed
    assert "27 images, 6 classes in 2 label fields (colour, shape)" in printed
    assert "  training images per class: colour=" in printed
    assert "(colour " in printed
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for split in ("train", "val"):
        total = row[f"{split}_loss_colour"] + row[f"{split}_loss_shape"]
        assert row[f"{split}_loss"] == pytest.approx(total, rel=1e-5)
        assert min(row[f"{split}_loss_colour"], row[f"{split}_loss_shape"]) > 0
    assert row["accuracy"] == pytest.approx((row["accuracy_colour"] + row["accuracy_shape"]) / 2)

    metrics = contents(run / "metrics.json")
    assert metrics["accuracy"] == row["accuracy"]
    fields = metrics["fields"]
    assert list(fields) == ["colour", "shape"]
    assert list(fields["shape"]["per_class"]) == sorted(SHAPES)
    size = len(contents(run / "split.json")["splits"]["val"])
    assert all(field["images"] + field["unlabelled"] == size for field in fields.values())
    for name in ("curves.png", "confusion-colour.png", "confusion-shape.png", "predictions.jpg"):
        assert cv2.imread(str(run / name)) is not None

    description: Any = load(run).description
    assert [field.name for field in description.label_fields] == ["colour", "shape"]
    assert main(["evaluate", str(run), "--device", "cpu", "--workers", "0"]) == 0
    assert contents(run / "evaluate-val/metrics.json") == metrics
    assert "mean accuracy of 2 label fields" in capsys.readouterr().out

    prediction = Predictor(run, "cpu")(drawn / "3.png")
    assert isinstance(prediction, FieldPredictions)
    assert main(["predict", str(run), str(drawn / "3.png"), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = contents(tmp_path / "out/predictions.json")
    assert [result["field"] for result in results] == ["colour", "shape"]
    categories = {entry["id"]: entry["name"] for entry in contents(tmp_path / "out/images.json")["categories"]}
    for result in results:
        assert categories[result["category_id"]] == f"{result['field']}={result['category']}"
        assert result["score"] == max(result["probabilities"])
        assert sum(result["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert main(["train", "--resume", str(run), "--epochs", "2", "--device", "cpu"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def test_one_column_is_an_ordinary_classifier(drawn: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", str(drawn), "--output", str(run), "--classes", "shape", *OPTIONS]) == 0
    metrics = contents(run / "metrics.json")
    assert list(metrics["per_class"]) == sorted(SHAPES)
    assert sum(map(sum, metrics["confusion"])) == metrics["images"]


def test_inspect_counts_each_column(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(drawn), "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "label field colour: 3 classes, 26 images, 1 without a label for it" in printed
    assert "colour=green" in printed
    assert contents(tmp_path / "summary.json")["label_fields"][1]["unlabelled"] == 1
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None


def small(fields: dict[str, str], rows: list[list[int]]) -> AnnotationTable:
    label_fields = tuple(LabelField(name, ClassMap(tuple(classes.split()))) for name, classes in fields.items())
    builder = TableBuilder(joined(label_fields), "", source="s", label_fields=label_fields)
    for row, index in enumerate(rows):
        builder.add_image(f"{row}.png", (40, 40), class_index=index)
    return builder.build()


def test_the_task_and_the_class_counts() -> None:
    table = small({"colour": "red blue", "shape": "x y"}, [[0, -1], [1, 1]])
    assert pick_task(None, None, table)[0] == "classify"
    assert class_counts(table) == {"colour=red": 1, "colour=blue": 1, "shape=x": 0, "shape=y": 1}
    single_class = small({"colour": "red blue", "shape": "x"}, [[0, 0], [1, 0]])
    assert "the label column 'shape' has only one class" in obstacles(single_class)["classify"]
    with pytest.raises(DataError, match="list the others with --classes"):
        pick_task(None, None, single_class)


def test_evaluation_matches_columns_by_name() -> None:
    model = small({"colour": "red blue", "shape": "x y"}, [])
    table = match_classes(small({"shape": "y x", "colour": "blue red"}, [[0, 1]]), model.class_map, model.label_fields)
    assert table.class_index.tolist() == [[0, 1]]
    with pytest.raises(DataError, match="size is not known; known are colour"):
        match_classes(small({"shape": "x y", "size": "s m"}, []), model.class_map, model.label_fields)
    single_field = replace(model, class_map=ClassMap(("red", "blue")), label_fields=())
    with pytest.raises(DataError, match="class 'red', 'blue' is not a class of the model"):
        match_classes(single_field, model.class_map, model.label_fields)


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True])
def test_each_column_is_learned_independently(shuffled: bool, tmp_path: Path) -> None:
    """Control: a column with shuffled labels stays at chance, and the other column is still learned."""
    data = draw_set(tmp_path / "data", 270, shuffled=shuffled)
    run = tmp_path / "run"
    options = ("--model", "resnet18", "--epochs", "12", "--val", "0.3", "--test", "0", "--lr", "1e-3", "--no-val-loss")
    assert main(["train", str(data), "--output", str(run), *OPTIONS, *options]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["accuracy_colour"] > 0.9
    if shuffled:
        assert last["accuracy_shape"] < 0.5  # chance is 0.33, on 81 images
    else:
        assert last["accuracy_shape"] > 0.7
