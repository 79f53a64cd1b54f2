"""Test that the same seed returns the same run: repeated, with loader workers, and after an interruption."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import detseg.training.trainer as trainer
from detseg.checkpoints import load_checkpoint
from detseg.cli import main

pytestmark = pytest.mark.usefixtures("no_images")

OPTIONS = ("--epochs", "3", "--augment", "strong", "--image-size", "64")


@pytest.fixture(scope="module")
def straight(parts: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train three epochs without an interruption."""
    run: Path = train(parts, tmp_path_factory.mktemp("straight") / "run", *OPTIONS)
    return run


def weights_equal(first: Path, second: Path) -> bool:
    """Return whether the last weights and the optimizer's state are bit-identical."""
    a, b = (load_checkpoint(run / "last.safetensors") for run in (first, second))
    assert a.weights.keys() == b.weights.keys()
    pairs = [(a.weights[name], b.weights[name]) for name in a.weights]
    pairs += [(a.optimizer[name], b.optimizer[name]) for name in a.optimizer]
    return all(torch.equal(tensor, other) for tensor, other in pairs)


def train_interrupted(
    parts: Path,
    run: Path,
    epochs: int,
    small: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Train a run that is stopped after ``epochs`` epochs and one training pass, before that pass is saved."""
    calls = itertools.count()
    validation_loss = trainer.validation_loss

    def stop(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == epochs:
            raise KeyboardInterrupt
        return validation_loss(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "validation_loss", stop)
        assert main(["train", str(parts), "--output", str(run), *small, *OPTIONS]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_resumed_run_ends_as_if_it_had_not_stopped(
    straight: Path,
    parts: Path,
    small: tuple[str, ...],
    rows: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    train_interrupted(parts, run, 2, small, monkeypatch, capsys)
    assert load_checkpoint(run / "last.safetensors").position.epoch == 2
    assert len(rows(run)) == 2
    assert not weights_equal(straight, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert weights_equal(straight, run)
    assert rows(run) == rows(straight)
    assert load_checkpoint(run / "last.safetensors").position == load_checkpoint(straight / "last.safetensors").position
    for name in ("metrics.json", "predictions.json", "split.json"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()


@pytest.mark.parametrize(
    ("more", "equal"),
    [
        pytest.param((), True, marks=pytest.mark.slow),
        (("--workers", "2"), True),
        (("--seed", "1"), False),
    ],
)
def test_the_same_seed_returns_the_same_run(
    more: tuple[str, ...], equal: bool, straight: Path, parts: Path, train: Any, rows: Any, tmp_path: Path
) -> None:
    torch.manual_seed(len(more))  # earlier random numbers must have no effect
    run = train(parts, tmp_path / "run", *OPTIONS, *more)
    assert weights_equal(straight, run) == equal
    assert (rows(run) == rows(straight)) == equal


@pytest.mark.parametrize(
    ("option", "value"),
    [("--lr", "0.5"), ("--batch-size", "1"), ("--freeze", "stem"), ("--seed", "3"), ("--augment", "none")],
)
def test_a_resumed_run_keeps_its_options(
    option: str, value: str, straight: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(straight), option, value]) == 1
    error = capsys.readouterr().err
    assert option in error
    assert value in error


def test_a_finished_run_trains_more_epochs_only_on_request(straight: Path, rows: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(straight, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert weights_equal(straight, run)
    assert rows(run) == rows(straight)
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    assert [row["epoch"] for row in rows(run)] == [1, 2, 3, 4]
    assert rows(run)[:3] == rows(straight)
    assert not weights_equal(straight, run)


def test_a_run_is_never_overwritten(
    straight: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in straight.iterdir()}
    assert main(["train", str(parts), "--output", str(straight), "--epochs", "1", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert str(straight) in error
    assert "--resume" in error
    assert {path.name: path.stat().st_mtime_ns for path in straight.iterdir()} == before
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
