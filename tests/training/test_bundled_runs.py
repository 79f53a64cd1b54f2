"""Test runs that start from the bundled weights: the chosen options, and a wheel that contains the weights."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detseg.annotations import read
from detseg.errors import DataError
from detseg.models.weights import published
from detseg.models.weights.bundled import BUNDLED, BUNDLED_ARCH, FITTING
from detseg.options import TrainConfig
from detseg.runtime.machine import MachineFacts
from detseg.training.make_plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
CPU = MachineFacts("cpu")


@pytest.mark.parametrize("task", ["segment", "detect"])
def test_the_matching_model_is_chosen(task: Any, parts: Path) -> None:
    table = read(parts)
    plan = make_plan(TrainConfig(data=str(parts), task=task, weights=BUNDLED), table, table, CPU)
    assert plan.model.model == FITTING[task]
    assert any("bundled weights fit" in line for line in plan.lines())
    default = make_plan(TrainConfig(data=str(parts), task=task), table, table, CPU)
    assert default.model.weights == "coco", "the default for other data than the demo set"


def test_randomly_initialized_stages_of_a_classifier_must_be_trainable(tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((40, 48, 3), np.uint8))
    table = read(tmp_path)
    bundled = TrainConfig(data=str(tmp_path), task="classify", weights=BUNDLED)
    assert make_plan(bundled, table, table, CPU).freezing.freeze == "none"
    for good in ({"freeze": "stem"}, {"trainable_layers": 3}):
        make_plan(replace(bundled, **good), table, table, CPU)
    for bad in ({"freeze": "backbone"}, {"trainable_layers": 2}, {"linear_probe_epochs": 1}):
        with pytest.raises(DataError, match=f"--{next(iter(bad)).replace('_', '-')} .*the others would stay random"):
            make_plan(replace(bundled, **bad), table, table, CPU)
        make_plan(replace(bundled, **bad, weights="imagenet"), table, table, CPU)  # control


def test_the_demo_run_starts_from_the_bundled_weights(parts: Path) -> None:
    table = read(parts)
    plan = make_plan(TrainConfig(), table, table, CPU)
    assert (plan.model.model, plan.model.weights, plan.freezing.freeze) == (BUNDLED_ARCH, BUNDLED, "none")
    other = make_plan(TrainConfig(model="maskrcnn_resnet18_fpn"), table, table, CPU)
    assert other.model.weights == "none", "they do not fit"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"model": BUNDLED_ARCH, "mask_rois_per_image": 6, "lr": 1e-3, "head_lr_mult": 3.0, "beta2": 0.98}),
        ({"task": "detect"}, {"model": FITTING["detect"], "mask_rois_per_image": None, "weights": BUNDLED}),
        ({"optimizer": "sgd"}, {"lr": 0.01, "beta2": None, "epochs": 16}),
        ({"minutes": 1.0, "head_lr_mult": 1.5}, {"epochs": 1, "head_lr_mult": 1.5}),
    ],
)
def test_options_of_the_demo_run(parts: Path, options: dict[str, Any], expected: dict[str, Any]) -> None:
    table = read(parts)
    values = make_plan(TrainConfig(**options), table, table, CPU).values()
    assert {name: values[name] for name in expected} == expected


def test_without_a_network_connection_the_error_suggests_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="--weights bundled"):
        published.fetch((tmp_path / "gone.pth").as_uri())


@pytest.mark.usefixtures("no_images")
def test_a_run_starts_from_the_bundled_weights(
    parts: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(parts, tmp_path / "run", "--weights", BUNDLED)
    assert "weights: bundled (" in capsys.readouterr().out
    assert f'weights = "{BUNDLED}"' in (run / "config.toml").read_text()


@pytest.mark.slow
def test_a_wheel_contains_them_and_runs_offline(parts: Path, tmp_path: Path) -> None:
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(wheel, check=True)
    (wheel_file,) = tmp_path.glob("detseg-*.whl")
    with zipfile.ZipFile(wheel_file) as archive:
        assert {f"detseg/weights/{BUNDLED_ARCH}.safetensors", "detseg/weights/card.md"} <= set(archive.namelist())
        archive.extractall(tmp_path / "site")  # a trusted file, built above
    code = (
        "import socket, sys\n"
        "def refuse(*args): raise OSError('no network')\n"
        "socket.socket.connect = refuse\n"
        "import detseg; assert detseg.__file__.startswith(sys.argv[1]), detseg.__file__\n"
        "from detseg.cli import main\n"
        "sys.exit(main(['train', sys.argv[2], '--weights', 'bundled', '--image-size', '64', '--epochs', '1',\n"
        "               '--rois-per-image', '16', '--device', 'cpu', '--output', 'run']))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "TORCH_HOME": str(tmp_path / "empty")}
    command = [sys.executable, "-c", code, str(tmp_path / "site"), str(parts)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)
    assert (tmp_path / "run" / "best.safetensors").is_file()
