"""The end of a run: its numbers first, the next commands; ``--resume`` of a finished run computes nothing."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from detseg import TrainConfig, fit
from detseg.checkpoints.checkpoint import load_checkpoint
from detseg.cli import main
from detseg.training.finished_run import saved_metrics
from detseg.training.metrics_log import read_rows

NO_PROGRESS = ("--lr", "1e-9", "--schedule", "constant", "--no-val-loss", "--patience", "1")
"""The weights do not change, so the second epoch is not better, and the run is stopped early."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


class Counter:
    """Counts forward passes, loaded weights, and decoded images."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        load_state_dict = torch.nn.Module.load_state_dict

        def counted(module: Any, *args: Any, **options: Any) -> Any:
            self.calls.append("load_state_dict")
            return load_state_dict(module, *args, **options)

        monkeypatch.setattr(torch.nn.Module, "load_state_dict", counted)
        self.handle = register_module_forward_pre_hook(lambda *_: self.calls.append("forward"))


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Any:
    counter = Counter(monkeypatch)
    yield counter
    counter.handle.remove()


@pytest.fixture(scope="module")
def finished(classify: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classify(tmp_path_factory.mktemp("finished") / "run", "--test", "0.2")


def test_resuming_a_finished_run_computes_nothing(
    finished: Path, counter: Counter, tmp_path: Path, capsys: Any
) -> None:
    before = contents(finished)
    assert main(["train", "--resume", str(finished)]) == 0
    printed = capsys.readouterr().out
    assert f"{finished} is finished: 2 of 2 epochs; nothing was computed" in printed
    assert f"detseg train --resume {finished} --epochs 4" in printed
    assert f"detseg predict {finished} IMAGES" in printed
    assert counter.calls == []
    assert contents(finished) == before
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    assert {"forward", "load_state_dict"} == set(counter.calls), "control"
    assert json.loads((run / "finished.json").read_text())["epochs"] == 4
    assert [row["epoch"] for row in read_rows(run / "metrics.jsonl", 4)] == [1, 2, 3, 4]


def test_from_python_the_model_is_loaded_when_it_is_used(finished: Path, counter: Counter) -> None:
    run = fit(TrainConfig(resume=str(finished), device="cpu"))
    assert counter.calls == []
    assert run.metrics.to_dict() == json.loads((finished / "metrics.json").read_text())
    assert run.plan.training.epochs == run.config.epochs == 2
    assert "accuracy" in repr(run)
    best = load_checkpoint(finished / "best.safetensors").weights
    assert not run.model.training
    assert all(torch.equal(value, best[name]) for name, value in run.model.state_dict().items())
    assert run.model is run.model


def test_a_run_without_its_last_results_is_not_finished(finished: Path, counter: Counter, tmp_path: Path) -> None:
    """Killed between the last epoch and the results: they are computed."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "finished.json").unlink()
    shutil.rmtree(run / "evaluate-test")
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    assert "forward" in counter.calls
    assert (run / "evaluate-test" / "metrics.json").is_file()
    assert (run / "finished.json").read_bytes() == (finished / "finished.json").read_bytes()


def test_a_run_that_was_stopped_early(classify: Any, tmp_path: Path, counter: Counter, capsys: Any) -> None:
    run = classify(tmp_path / "run", "--epochs", "4", *NO_PROGRESS)
    before, _ = contents(run), counter.calls.clear()
    assert main(["train", "--resume", str(run)]) == 0
    printed = capsys.readouterr().out
    assert "is finished: 2 of 4 epochs (stopped early)" in printed
    assert f"--resume {run} --epochs 8" in printed
    assert counter.calls == []
    (run / "finished.json").unlink()  # as a run of an earlier version
    assert main(["train", "--resume", str(run), "--device", "cpu"]) == 0
    assert contents(run)["metrics.jsonl"] == before["metrics.jsonl"], "no epoch more"
    assert main(["train", "--resume", str(run), "--epochs", "8", "--device", "cpu"]) == 0
    rows = read_rows(run / "metrics.jsonl", 8)
    assert [row["epoch"] for row in rows] == [1, 2, 3], "patience counts again from 0"


def test_the_numbers_come_first(parts: Path, train: Any, tmp_path: Path, capsys: Any) -> None:
    run = train(parts, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    (first,) = (line for line in lines if line.startswith("validation split, best epoch 1 of 1: box AP "))
    assert all(name in first for name in ("box AP50 ", "mask AP ", "mask AP50 "))
    position = lines.index(first)
    assert lines[position + 2].startswith("class ")
    assert not any("Average Precision" in line for line in lines)
    end = next(index for index, line in enumerate(lines) if line.startswith("finished in "))
    assert lines[end].endswith(f"; wrote {run}")
    assert lines[end + 2 :] == [f"  detseg predict {run} IMAGES", f"  detseg evaluate {run} --split val"]
    assert saved_metrics(run).to_dict() == json.loads((run / "metrics.json").read_text())
    assert main(["evaluate", str(run), "--coco-lines", "--device", "cpu", "--output", str(tmp_path / "e")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Average ") == 24, "twelve lines of boxes and of masks"
    assert "area= small" in printed
    assert "val split: box AP " in printed


def test_the_lines_of_coco_on_request(parts: Path, train: Any, tmp_path: Path, capsys: Any, no_images: None) -> None:
    train(parts, tmp_path / "run", "--coco-lines")
    assert capsys.readouterr().out.count("Average ") == 24


def test_commands_have_the_form_of_the_call(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    script = Path(__file__).parents[2] / "tools" / "train.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert main(["train", "--resume", str(finished)]) == 0
    assert f"python {script.with_name('predict.py')} {finished} IMAGES" in capsys.readouterr().out
