"""Test the options of ``train``, each in a run of about a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints import load, load_checkpoint
from detseg.cli import main

pytestmark = pytest.mark.usefixtures("no_images")

RATE = 1e-3


def classify(data: Path | None, output: Path, *options: str) -> int:
    positional = [] if data is None else [str(data)]
    model = ["--model", "mobilenet_v3_small", "--weights", "none", "--image-size", "64", "--device", "cpu"]
    training = ["--workers", "0", "--batch-size", "6", "--lr", str(RATE), "--augment", "none", "--output", str(output)]
    return main(["train", *positional, *model, *training, *options])


def rates(run: Path) -> list[float]:
    return [json.loads(text)["lr"] for text in (run / "metrics.jsonl").read_text().splitlines()]


def files(run: Path) -> dict[str, set[str]]:
    parts = json.loads((run / "split.json").read_text())["splits"]
    return {name: {Path(image["file"]).name for image in images} for name, images in parts.items()}


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        (("--schedule", "constant", "--optimizer", "sgd", "--momentum", "0.5"), [1, 1]),
        (("--schedule", "step", "--step-epochs", "1", "--optimizer", "adamw"), [0.1, 0.01]),
        (("--schedule", "multistep", "--milestones", "[2]", "--weight-decay", "0"), [1, 0.1]),
        (("--schedule", "exponential", "--gamma", "0.5", "--clip-norm", "0"), [0.5, 0.25]),
        (("--schedule", "cosine", "--no-val-loss", "--backbone-lr-mult", "0.1"), [0.505, 0.01]),
    ],
)
def test_schedules_and_optimizers(
    options: tuple[str, ...], factors: list[float], colour_folders: Path, tmp_path: Path, rows: Any
) -> None:
    run = tmp_path / "run"
    assert classify(colour_folders, run, "--epochs", "2", "--warmup-steps", "0", *options) == 0
    assert rates(run) == pytest.approx([RATE * factor for factor in factors], rel=1e-6)
    assert ("val_loss" in rows(run)[0]) == ("--no-val-loss" not in options)


def test_patience_stops_early(
    colour_folders: Path, tmp_path: Path, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--epochs", "4", "--lr", "1e-9", "--schedule", "constant", "--no-val-loss")
    assert classify(colour_folders, tmp_path / "run", *options, "--patience", "1") == 0
    assert "stopped early" in capsys.readouterr().out
    assert len(rows(tmp_path / "run")) == 2  # the weights do not change, so the second epoch is no better
    assert classify(colour_folders, tmp_path / "control", *options) == 0
    assert len(rows(tmp_path / "control")) == 4


def test_evaluations_after_some_epochs(colour_folders: Path, tmp_path: Path, rows: Any) -> None:
    """Evaluate every second epoch and the last; early stopping uses no other."""
    options = ("--epochs", "5", "--lr", "1e-9", "--schedule", "constant", "--eval-epochs", "2")
    assert classify(colour_folders, tmp_path / "run", *options) == 0
    epoch_rows = rows(tmp_path / "run")
    assert [row["epoch"] for row in epoch_rows if "accuracy" in row] == [2, 4, 5]
    assert [row["epoch"] for row in epoch_rows if "val_loss" in row] == [2, 4, 5]
    assert all("train_loss" in row for row in epoch_rows)
    assert classify(colour_folders, tmp_path / "patience", *options, "--patience", "1") == 0
    assert len(rows(tmp_path / "patience")) == 4  # the first evaluation, and one that is no better
    assert classify(colour_folders, tmp_path / "control", *options[:-2]) == 0
    assert [row["epoch"] for row in rows(tmp_path / "control") if "accuracy" in row] == [1, 2, 3, 4, 5]


def test_groups_stay_in_one_split(colour_folders: Path, tmp_path: Path) -> None:
    def films(run: Path) -> list[set[str]]:
        return [{name.split("_")[0] for name in names} for names in files(run).values()]

    grouped, ungrouped = tmp_path / "grouped", tmp_path / "ungrouped"
    assert classify(colour_folders, grouped, "--epochs", "1", "--split", "group", "--group", "(film[0-9])") == 0
    train, val = films(grouped)
    assert not train & val
    assert classify(colour_folders, ungrouped, "--epochs", "1") == 0
    train, val = films(ungrouped)
    assert train & val  # control: without groups films are divided


def test_subset_and_split_file(colour_folders: Path, tmp_path: Path) -> None:
    first, again, small = (tmp_path / name for name in ("first", "again", "small"))
    assert classify(colour_folders, first, "--epochs", "1", "--val", "0.3", "--seed", "5") == 0
    assert classify(colour_folders, again, "--epochs", "1", "--split-file", str(first / "split.json")) == 0
    assert files(again) == files(first)
    assert classify(colour_folders, small, "--epochs", "1", "--val", "0.3", "--seed", "5", "--subset", "6") == 0
    assert len(files(small)["train"]) == 6
    assert files(small)["train"] < files(first)["train"]
    assert files(small)["val"] == files(first)["val"]


def test_a_test_split_is_evaluated_on_request(colour_folders: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert classify(colour_folders, run, "--epochs", "1", "--test", "0.2") == 0
    assert {name: len(names) for name, names in files(run).items()} == {"train": 10, "val": 4, "test": 4}
    assert main(["evaluate", str(run), "--split", "test", "--device", "cpu", "--output", str(tmp_path / "test")]) == 0
    assert json.loads((tmp_path / "test/metrics.json").read_text())["images"] == 4


def test_options_from_a_file(
    colour_folders: Path, tmp_path: Path, rows: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'data = "{colour_folders}"\nepochs = 2\nschedule = "constant"\nwarmup_steps = 0\nclasses = ["red", "blue"]\n'
    )
    run = tmp_path / "run"
    assert classify(None, run, "--config", str(file), "--epochs", "1") == 0
    assert len(rows(run)) == 1
    assert load(run).description.class_map.names == ("red", "blue")  # type: ignore[union-attr]
    # the saved config is such a file, too
    saved = tmp_path / "saved"
    assert main(["train", "--config", str(run / "config.toml"), "--output", str(saved)]) == 0
    assert rows(saved) == rows(run)
    file.write_text("epoch = 1\n")
    with pytest.raises(SystemExit):
        classify(None, tmp_path / "never", "--config", str(file))
    assert "epoch" in capsys.readouterr().err


def test_a_frozen_part_does_not_change(colour_folders: Path, tmp_path: Path) -> None:
    def weights(name: str, *options: str) -> dict[str, torch.Tensor]:
        assert classify(colour_folders, tmp_path / name, "--schedule", "constant", "--no-val-loss", *options) == 0
        return load_checkpoint(tmp_path / name / "last.safetensors").weights

    def differ(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> set[str]:
        return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}

    short = weights("short", "--epochs", "1", "--freeze", "backbone")
    long = weights("long", "--epochs", "2", "--freeze", "backbone")
    free = weights("free", "--epochs", "1")
    assert differ(short, long)
    assert differ(short, free) > differ(short, long)  # control: not frozen, the backbone and its norm statistics change


def test_a_frozen_rpn_and_trainable_layers(
    parts: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    train(parts, tmp_path / "rpn", "--freeze", "rpn")
    states = {line.split()[0]: line.split()[-1] for line in capsys.readouterr().out.splitlines() if " M " in line}
    assert states["rpn"] == "frozen"
    assert "frozen" not in [line for line in states if line.startswith("mask")]
    losses = json.loads((tmp_path / "rpn/metrics.jsonl").read_text())
    assert "train_loss_objectness" not in losses
    assert "train_loss_mask" in losses
    train(parts, tmp_path / "layers", "--trainable-layers", "2")
    assert "val_loss_objectness" in json.loads((tmp_path / "layers/metrics.jsonl").read_text())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--freeze", "backbone", "--trainable-layers", "2"), "--trainable-layers"),
        (("--model", "resnet19"), "resnet19"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--task", "segment"), "segment"),
        (("--classes", "red,pink"), "pink"),
        (("--device", "nothing"), "nothing"),
        (("--device", "0"), "did you mean cuda:0?"),
        (("--split", "source"), "train split"),
        (("--split-file", "nowhere.json"), "nowhere.json"),
    ],
)
def test_bad_options_print_one_line_and_create_no_folder(
    options: tuple[str, ...], expected: str, colour_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert classify(colour_folders, tmp_path / "run", "--epochs", "1", *options) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [("--val", "1.5"), ("--subset", "0")])
def test_numbers_out_of_range_exit_with_2_and_create_no_folder(
    options: tuple[str, str], colour_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        classify(colour_folders, tmp_path / "run", "--epochs", "1", *options)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"detseg train: {' '.join(options)}: it must be")
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_validation_images_without_objects_save_the_last_epoch_as_best(
    parts: Path, tmp_path: Path, train: Any, no_images: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(parts, data)
    ground_truth = json.loads((data / "instances_val.json").read_text())
    (data / "instances_val.json").write_text(json.dumps({**ground_truth, "annotations": []}))
    run = train(data, tmp_path / "run", "--epochs", "2")
    assert "AP is not defined" in capsys.readouterr().out
    best, last = load_checkpoint(run / "best.safetensors"), load_checkpoint(run / "last.safetensors")
    assert best.position.best_epoch == 1
    assert all(torch.equal(best.weights[name], last.weights[name]) for name in last.weights)
