"""``--val 0``: train on all images; the epoch with the lowest training loss is the best."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints import load_checkpoint
from detseg.checkpoints.checkpoint import Position
from detseg.checkpoints.manager import CheckpointManager
from detseg.cli import main
from detseg.errors import DataError
from detseg.options import TrainConfig
from detseg.runtime.signals import EXIT_CODE
from detseg.training import time_budget
from detseg.training.fit import fit
from detseg.training.training_metrics import TrainingMetrics

FAST = ("--val", "0", "--lr", "1e-3")


def contents(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_classifier(classify: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    """Result files, what is printed, evaluation of the training split."""
    run = classify(tmp_path / "run", *FAST, "--epochs", "3")
    printed = capsys.readouterr().out
    assert printed.count("no validation split") == 1
    assert "split (auto): 18 train" in printed
    assert "plus evaluation" not in printed
    assert "training split, epoch of the lowest loss" in printed
    assert list(contents(run / "split.json")["splits"]) == ["train"]
    epoch_rows = rows(run)
    assert not [key for row in epoch_rows for key in row if key.startswith(("val_", "accuracy"))]
    lowest = min(epoch_rows, key=lambda row: row["train_loss"])
    metrics = contents(run / "metrics.json")
    assert metrics["epoch"] == lowest["epoch"]
    assert metrics["train_loss"] == lowest["train_loss"]
    assert metrics["train_accuracy"] == lowest["train_accuracy"]
    checkpoint = load_checkpoint(run / "best.safetensors")
    assert (checkpoint.position.best, checkpoint.position.best_epoch) == (-lowest["train_loss"], lowest["epoch"] - 1)
    names = {path.name for path in run.iterdir()}
    assert not {"predictions.jpg", "confusion.png", "predictions.json"} & names
    assert main(["evaluate", str(run), "--split", "train", "--device", "cpu"]) == 0
    assert contents(run / "evaluate-train" / "metrics.json")["images"] == 18
    capsys.readouterr()
    assert main(["evaluate", str(run), "--device", "cpu"]) == 1
    assert "has no val split; available splits: train" in capsys.readouterr().err


def test_the_best_epoch_is_that_of_the_lowest_loss(classify: Any, tmp_path: Path, rows: Any) -> None:
    """With a learning rate that makes the loss worse after the first epoch, the first weights are kept."""
    options = ("--val", "0", "--epochs", "3", "--schedule", "multistep", "--milestones", "[1]", "--gamma", "1000")
    run = classify(tmp_path / "run", *options, "--lr", "1e-3", "--warmup-steps", "0", "--clip-norm", "0")
    losses = [row["train_loss"] for row in rows(run)]
    assert losses.index(min(losses)) < 2, "control: the last epoch is not the best"
    best, last = (load_checkpoint(run / f"{name}.safetensors") for name in ("best", "last"))
    assert best.position.best_epoch == losses.index(min(losses))
    assert last.position.best_epoch == best.position.best_epoch
    assert not all(torch.equal(tensor, last.weights[name]) for name, tensor in best.weights.items())


def test_patience_watches_the_training_loss(classify: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    options = ("--val", "0", "--epochs", "5", "--lr", "10", "--schedule", "constant", "--optimizer", "sgd")
    run = classify(tmp_path / "run", *options, "--clip-norm", "0.001", "--patience", "1")
    losses = [row["train_loss"] for row in rows(run)]
    rising = [later >= min(losses[:index]) for index, later in enumerate(losses) if index]
    assert ("no lower training loss for 1 epochs" in capsys.readouterr().out) == any(rising)
    assert not any(rising[:-1]), "it stops at the first epoch without a lower loss"


def test_a_detector_with_an_average(parts: Path, train: Any, tmp_path: Path, rows: Any, capsys: Any) -> None:
    """The val folder of the data is used for training too, with a note; the average is saved as the best weights."""
    run = train(parts, tmp_path / "run", "--val", "0", "--ema", "0.5")
    printed = capsys.readouterr().out
    assert "split (auto): 6 train" in printed
    assert "val split used for training, because val is 0" in printed
    assert not (run / "predictions.json").exists()
    best, last = (load_checkpoint(run / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(tensor, last.ema[name]) for name, tensor in best.weights.items())
    assert not all(torch.equal(tensor, last.weights[name]) for name, tensor in best.weights.items()), "control"
    assert contents(run / "metrics.json")["train_loss_mask"] > 0
    assert main(["predict", str(run), str(parts / "val"), "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0


def test_a_resumed_run_ends_equal(classify: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the training accuracy of the epoch that was interrupted."""
    uninterrupted = classify(tmp_path / "uninterrupted", *FAST, "--epochs", "3")
    stopped = tmp_path / "stopped"
    is_due = CheckpointManager.is_due

    def signal_and_check(self: CheckpointManager, position: Position) -> bool:
        if position.step == 4:  # of three steps per epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return is_due(self, position)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointManager, "is_due", signal_and_check)
        with pytest.raises(AssertionError, match=str(EXIT_CODE)):
            classify(stopped, *FAST, "--epochs", "3")
    assert load_checkpoint(stopped / "last.safetensors").totals[0].correct_counts["accuracy"][1] == 6
    assert main(["train", "--resume", str(stopped), "--device", "cpu"]) == 0
    assert rows(stopped) == rows(uninterrupted)
    for name in ("last.safetensors", "best.safetensors", "metrics.json"):
        assert (stopped / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_finished_run_can_be_resumed(classify: Any, tmp_path: Path) -> None:
    run = classify(tmp_path / "run", *FAST)
    before = contents(run / "metrics.json")
    resumed = fit(TrainConfig(resume=str(run), device="cpu"))
    assert isinstance(resumed.metrics, TrainingMetrics)
    assert resumed.metrics.to_dict() == before == contents(run / "metrics.json")


def test_a_test_split_can_still_be_held_out(classify: Any, tmp_path: Path, capsys: Any) -> None:
    run = classify(tmp_path / "run", *FAST, "--test", "0.2", "--epochs", "1")
    assert {name: len(images) for name, images in contents(run / "split.json")["splits"].items()} == {
        "train": 14,
        "test": 4,
    }
    assert contents(run / "evaluate-test" / "metrics.json")["images"] == 4
    assert "test split (not used for model selection)" in capsys.readouterr().out


def test_a_time_budget(classify: Any, tmp_path: Path, rows: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = time_budget.epoch_seconds
    monkeypatch.setattr(time_budget, "epoch_seconds", lambda *given: measure(*given)._replace(training=130.0))
    run = classify(tmp_path / "run", *FAST, "--epochs", "null", "--minutes", "6")
    assert "evaluation 0 s," in capsys.readouterr().out
    assert len(rows(run)) == 2


def test_the_split_file_of_such_a_run(classify: Any, tmp_path: Path, capsys: Any) -> None:
    run = classify(tmp_path / "run", *FAST, "--epochs", "1")
    classify(tmp_path / "again", "--epochs", "1", "--split-file", str(run / "split.json"))
    assert "no validation split" in capsys.readouterr().out


def test_contradictions_are_errors(classify: Any, colour_folders: Path, tmp_path: Path, capsys: Any) -> None:
    run = classify(tmp_path / "run", "--epochs", "1")
    split_file = str(run / "split.json")
    assert main(["train", str(colour_folders), "--split-file", split_file, "--val", "0", "--output", "x"]) == 1
    assert "which has a validation split of" in capsys.readouterr().err
    with pytest.raises(DataError, match="--val 0 with --val-annotations"):
        fit(TrainConfig(data=str(colour_folders), val_annotations=str(colour_folders), val=0.0, output=str(tmp_path)))
    for what in ("baseline", "transfer"):
        assert main(["benchmark", what, str(colour_folders), "--val", "0"]) == 1
        assert f"benchmark {what} --val 0: scores need validation images" in capsys.readouterr().err


def test_metrics() -> None:
    metrics = TrainingMetrics(3, {"train_loss": 0.5, "train_accuracy": None})
    assert metrics.best() == -0.5
    assert metrics.lines() == ["training loss 0.5000"]
    assert metrics.to_dict() == {"epoch": 3, "first_epoch": 1, "train_loss": 0.5, "train_accuracy": None}
    assert TrainingMetrics(0, {}).best() == float("-inf")
