"""Test starting weights at equal budgets: the list of runs, their common options, and resuming."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import read
from detseg.benchmarks import weights as transfer
from detseg.checkpoints import save_checkpoint
from detseg.cli import main, parse
from detseg.models import MODELS
from detseg.models.create import create_model
from detseg.options import TransferConfig
from detseg.options.plan import Plan
from detseg.options.text import flat_options
from detseg.training import time_budget as budget
from detseg.training.time_limit import EpochSeconds, TimeLimit

pytestmark = pytest.mark.usefixtures("no_images")

TINY = (
    *("--task", "detect", "--image-size", "64", "--batch-size", "2", "--workers", "0", "--device", "cpu"),
    *("--rois-per-image", "16", "--detections-per-image", "20", "--no-val-loss", "--augment", "none"),
)
LARGE = "fasterrcnn_mobilenet_v3_large_fpn_slim"


@pytest.fixture(scope="module")
def started(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write weights that replace those of the package."""
    file = tmp_path_factory.mktemp("weights") / "bundled.safetensors"
    model = create_model(LARGE, read(parts).class_map, weights="none").model
    save_checkpoint(file, model)
    return file


@pytest.fixture
def two_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make two epochs fit in any budget, without measurements and as if no time passed."""

    def half(plan: Plan, *args: Any) -> EpochSeconds:
        minutes = plan.training.minutes or 0.0
        return EpochSeconds(18 * minutes, 0.0, 0.5)

    monkeypatch.setattr(budget, "epoch_seconds", half)
    monkeypatch.setattr(TimeLimit, "left", lambda self: self.seconds - self.after)


@pytest.mark.usefixtures("two_epochs")
def test_runs_are_comparable_and_a_second_call_adds_what_is_missing(
    parts: Path, started: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    call = ["benchmark", "transfer", str(parts), "--output", str(output), "--bundled", str(started), *TINY]
    assert main([*call, "--budgets", "[0.5]", "--seeds", "[0]"]) == 0
    first = json.loads((output / "transfer.json").read_text())["rows"]
    assert [row["arm"] for row in first] == ["scratch", "bundled frozen", "bundled fine-tuned"]
    assert all((row["budget"], row["seed"], row["epochs"]) == (0.5, 0, 2) for row in first)
    assert all(0 <= row["bbox_AP50"] <= 1 and row["minutes"] > 0 for row in first)

    folders = [output / f"{arm}-0.5min-0" for arm in ("scratch", "bundled-frozen", "bundled-fine-tuned")]
    runs = [flat_options(tomllib.loads((folder / "config.toml").read_text())) for folder in folders]
    assert [run["weights"] for run in runs] == ["none", str(started), str(started)]
    assert [run["freeze"] for run in runs] == ["none", "backbone", "none"]
    assert [run.get("norm_eval") for run in runs] == [
        False,
        True,
        True,
    ]  # from random weights, norm statistics are trained
    arm_options = ("weights", "freeze", "norm_eval", "output", "anchor_sizes")
    shared = [{name: value for name, value in run.items() if name not in arm_options} for run in runs]
    assert shared[0] == shared[1] == shared[2]
    assert (shared[0]["lr"], shared[0]["optimizer"], shared[0]["minutes"]) == (1e-3, "adamw", 0.5)

    times = {path: path.stat().st_mtime_ns for path in output.glob("*/last.safetensors")}
    assert main([*call, "--budgets", "[0.5]", "--seeds", "[1,0]", "--arms", "scratch,bundled frozen"]) == 0
    rows = json.loads((output / "transfer.json").read_text())["rows"]
    assert rows[:3] == first
    assert [(row["arm"], row["seed"]) for row in rows[3:]] == [("scratch", 1), ("bundled frozen", 1)]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    splits = [json.loads(path.read_text())["splits"] for path in output.glob("**/split.json")]
    assert len(splits) == 6
    assert all(split == splits[0] for split in splits)

    text = (output / "transfer.md").read_text()
    assert "| budget | arm | box AP | box AP50 | minutes | epochs | seeds |" in text
    assert "torch " in text
    assert text.count(f"    detseg benchmark transfer {parts}") == 2
    assert "bundled fine-tuned" in capsys.readouterr().out.splitlines()[-1]

    assert main([*call, "--lr", "0.1"]) == 1
    assert "was started with lr None, not 0.1" in capsys.readouterr().err


@pytest.mark.usefixtures("two_epochs")
def test_an_interrupted_run_is_resumed(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from detseg.training import trainer

    output, train_steps = tmp_path / "out", trainer.train_steps
    call = ["benchmark", "transfer", str(parts), "--output", str(output), *TINY, "--arms", "scratch"]
    call += ["--budgets", "[0.5]", "--seeds", "[0]"]

    def stop(*args: Any, **options: Any) -> Any:
        if args[4] == 1:
            raise KeyboardInterrupt
        return train_steps(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "train_steps", stop)
        assert main(call) == 130
    assert json.loads((output / "transfer.json").read_text())["rows"] == []
    assert main(call) == 0
    assert "after epoch 1" in capsys.readouterr().out
    (row,) = json.loads((output / "transfer.json").read_text())["rows"]
    assert row["epochs"] == 2


@pytest.mark.usefixtures("two_epochs")
def test_classifiers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("blue", "red")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(5):
            image = rng.integers(0, 100, (40, 48, 3)).astype(np.uint8)
            image[..., 2 * channel] += 120
            cv2.imwrite(str(tmp_path / "data" / name / f"{index}.png"), image)
    model = create_model("mobilenet_v2", ["red", "blue"], weights="none").model
    save_checkpoint(tmp_path / "imagenet.safetensors", model)
    call = ["benchmark", "transfer", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--image-size", "64"]
    call += ["--imagenet", str(tmp_path / "imagenet.safetensors"), "--arms", "scratch,imagenet frozen"]
    assert main([*call, "--budgets", "[0.5]", "--seeds", "[3]", "--device", "cpu"]) == 0
    rows = json.loads((tmp_path / "out" / "transfer.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["mobilenet_v3_large", "mobilenet_v2"]
    assert all(0 <= row["accuracy"] <= 1 for row in rows)
    assert "| accuracy |" in (tmp_path / "out" / "transfer.md").read_text()


@pytest.mark.slow
def test_the_demo_set_within_measured_minutes(tmp_path: Path) -> None:
    call = ["benchmark", "transfer", "--output", str(tmp_path / "out"), "--arms", "scratch", "--seeds", "[0]"]
    assert main([*call, "--budgets", "[2.5]"]) == 0
    (row,) = json.loads((tmp_path / "out" / "transfer.json").read_text())["rows"]
    assert 0 < row["minutes"] < 2.9
    assert 0 <= row["segm_AP"] <= 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--budgets", "[3,3]"), "without duplicates"),
        (("--seeds", "[]"), "--seeds []: give one or more"),
        (("--arms", "scrach"), "--arms scrach: unknown arm; the arms are scratch, bundled frozen"),
        (("--arms", "imagenet frozen"), "--imagenet FILE"),
        (("--task", "keypoints"), "cannot be used for keypoints"),
        (("--bundled", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_invalid_options(
    options: tuple[str, ...], expected: str, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", "transfer", str(parts), "--output", str(tmp_path / "out"), *options]) == 1
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--budgets", "[3,0]"), "--budgets [3.0, 0.0]: it must be a number above 0"),
        (("--seeds", "[-1]"), "--seeds [-1]: it must be at least 0"),
    ],
)
def test_numbers_out_of_range_exit_with_2(
    options: tuple[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", "transfer", *options])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"detseg benchmark: {expected}\n"


def test_arms_of_each_task_are_models_that_exist() -> None:
    config = TransferConfig(imagenet="v2.pth")
    for task in transfer.METRICS:
        arms = transfer.pick_arms(config, task)
        assert ("bundled frozen" in arms) == (task != "classify"), "a classifier uses only the first stages"
        assert len(arms) == (4 if task == "classify" else 5)
        assert {MODELS[arm.model].task for arm in arms.values()} == {task}
        sizes = {transfer.common_options(TransferConfig(data=data), task)["image_size"] for data in ("", "x")}
        assert sizes == {240, 224 if task == "classify" else 320}
    assert "bundled frozen" in transfer.pick_arms(TransferConfig(bundled="own.safetensors"), "classify")


def test_the_table_has_mean_and_range_of_the_finished_seeds() -> None:
    def row(arm: str, seed: int, budget: float, accuracy: float | None, epochs: int = 4) -> dict[str, Any]:
        return {"arm": arm, "budget": budget, "seed": seed, "accuracy": accuracy, "minutes": 2.5, "epochs": epochs}

    rows = [row("b", 0, 20, 0.75), row("b", 0, 3, 0.5), row("b", 1, 3, 0.25, 6), row("a", 0, 3, None)]
    header, cells = transfer.table_of(rows, "classify")
    assert header == ["budget", "arm", "accuracy", "minutes", "epochs", "seeds"]
    assert cells == [
        ["3", "b", "0.375 (0.250 to 0.500)", "2.50", "5 (4 to 6)", "2"],
        ["3", "a", "-", "2.50", "4", "1"],
        ["20", "b", "0.750", "2.50", "4", "1"],
    ]


def test_the_command_in_the_report_has_the_same_options() -> None:
    arguments = ["transfer", "my data", "--budgets", "[3,0.5]", "--arms", "scratch,bundled frozen", "--no-val-loss"]
    config = parse("benchmark", arguments)
    words = shlex.split(transfer.command_of(config))
    assert words[:2] == ["detseg", "benchmark"]
    assert parse("benchmark", words[2:]) == config
