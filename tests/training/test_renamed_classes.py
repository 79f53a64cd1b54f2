"""New names of classes through a run: trained, resumed, evaluated, predicted; and in results files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detseg.checkpoints import load
from detseg.cli import main
from detseg.metrics import evaluate_files
from tests.real_exports import cases_rename, sets

CLASSIFIER = (
    *("--model", "mobilenet_v3_small", "--weights", "none", "--image-size", "40", "--batch-size", "4"),
    *("--epochs", "1", "--workers", "0", "--device", "cpu"),
)
pytestmark = pytest.mark.usefixtures("no_images")


def contents(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def failure(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(list(map(str, words))) == 1
    return capsys.readouterr().err


def other_data(folder: Path, copy: Path) -> Path:
    """A copy whose images have other names, so that it is not the data of the run in another place."""
    shutil.copytree(folder, copy)
    images = [path for path in copy.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png")]
    for path in images:
        path.rename(path.with_name(f"new_{path.name}"))
    for path in [*copy.rglob("*.json"), *copy.rglob("*.csv")]:
        text = path.read_text(encoding="utf-8")
        for name in {image.name for image in images}:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}", f"new_{name}", text)
        path.write_text(text, encoding="utf-8")
    return copy


@pytest.mark.slow
def test_a_run_with_new_names(
    parts: Path, train: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trained on merged and renamed classes; resumed and evaluated with the same; on data with other names."""
    run = train(parts, tmp_path / "run", "--epochs", "1", "--rename", "bolt=metal,nut=metal", "--rename", "washer=ring")
    description: Any = load(run).description
    assert set(description.class_map.names) == {"metal", "ring"}
    evaluate = ("evaluate", run, "--device", "cpu", "--workers", "0")
    assert main(list(map(str, evaluate))) == 0
    assert contents(run / "evaluate-val/metrics.json") == contents(run / "metrics.json")

    message = failure(capsys, *evaluate, other_data(parts, tmp_path / "copy"))
    assert "class 'bolt', 'nut', 'washer' is not a class of the model, which has 'metal', 'ring'" in message
    assert "give it a name of the model, such as --rename bolt=" in message
    again = (
        *evaluate,
        tmp_path / "copy",
        "--rename",
        "bolt=metal,nut=metal,washer=ring",
        "--output",
        tmp_path / "other",
    )
    assert main(list(map(str, again))) == 0
    assert contents(tmp_path / "other/metrics.json") == contents(run / "metrics.json")

    image = next(file for file in parts.rglob("*") if file.suffix in (".jpg", ".jpeg", ".png"))
    predict = ("predict", run, image, "--output", tmp_path / "out", "--device", "cpu")
    assert main(list(map(str, (*predict, "--rename", "ring=washer")))) == 0
    assert {entry["name"] for entry in contents(tmp_path / "out/images.json")["categories"]} == {"metal", "washer"}
    assert {result["category"] for result in contents(tmp_path / "out/predictions.json")} <= {"metal", "washer"}
    assert "would have the name 'metal'" in failure(capsys, *predict, "--rename", "ring=metal")

    assert main(["train", "--resume", str(run), "--epochs", "2", "--device", "cpu"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


def results_of(file: Path, swapped: bool) -> list[dict[str, Any]]:
    """The objects of a COCO file as results; ``swapped``: the classes 1 and 2 are taken for each other."""
    other = {1: 2, 2: 1} if swapped else {}
    return [
        {"score": 0.9, **{key: item[key] for key in ("image_id", "bbox")}, "category_id": other.get(number, number)}
        for item in contents(file)["annotations"]
        for number in (item["category_id"],)
    ]


def test_results_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two classes that were taken for each other are one class after --rename, in both files."""
    cases_rename.coco(tmp_path)
    truth, predictions = tmp_path / "annotations.json", tmp_path / "results.json"
    predictions.write_text(json.dumps(results_of(truth, swapped=True)))
    assert evaluate_files(truth, predictions).scalars()["bbox_AP"] == pytest.approx(1 / 3), "control: only nut"
    merged = evaluate_files(truth, predictions, rename="object=bolt,M6=bolt")
    assert merged.scalars()["bbox_AP"] == pytest.approx(1)
    assert '"bolt"' in json.dumps(merged.to_dict())
    files = ("evaluate", "--predictions", predictions, "--ground-truth", truth)
    assert main(list(map(str, (*files, "--json", "--rename", "object=bolt")))) == 0
    printed = capsys.readouterr().out
    assert '"bolt"' in printed
    assert '"object"' not in printed
    assert "has no class 'objct'" in failure(capsys, *files, "--rename", "objct=bolt")
    assert "omit --rename or --reference" in failure(capsys, *files, "--rename", "object=bolt", "--reference")
    assert "--classes with --predictions" in failure(capsys, *files, "--classes", "object")
    assert "--class-attribute with --predictions" in failure(capsys, *files, "--class-attribute", "type")


def test_a_classifier_with_new_names_and_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run reads its data again with its options; other data of the same kind needs them, too."""
    names = [("red", "disc"), ("crimson", "ring"), ("blue", "disc")] * 4
    for index in range(len(names)):
        sets.image(tmp_path / "data" / f"{index}.png")
    rows = [f"{index}.png,{colour},{shape}" for index, (colour, shape) in enumerate(names)]
    sets.put(tmp_path / "data/labels.csv", "\n".join(["filename,colour,shape", *rows]) + "\n")
    options = ("--class-attribute", "colour", "--rename", "crimson=red")
    run, data = tmp_path / "run", tmp_path / "data"
    assert main(["train", str(data), "--output", str(run), *options, *CLASSIFIER]) == 0
    description: Any = load(run).description
    assert description.class_map.names == ("blue", "red")
    evaluate = ("evaluate", run, "--device", "cpu", "--workers", "0")
    assert main(list(map(str, evaluate))) == 0
    assert contents(run / "evaluate-val/metrics.json") == contents(run / "metrics.json")
    copy = other_data(data, tmp_path / "copy")
    assert "is not a class of the model" in failure(capsys, *evaluate, copy)
    message = failure(capsys, *evaluate, copy, *options[:2])
    assert "such as --rename crimson=" in message, "the remedy"
    assert main(list(map(str, (*evaluate, copy, *options, "--split", "all", "--output", tmp_path / "all")))) == 0
    predict = ("predict", run, data / "0.png", "--output", tmp_path / "out", "--device", "cpu", "--rename", "red=RED")
    assert main(list(map(str, predict))) == 0
    assert contents(tmp_path / "out/predictions.json")[0]["category"] in ("RED", "blue")
    assert main(["train", "--resume", str(run), "--epochs", "2", "--device", "cpu"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
