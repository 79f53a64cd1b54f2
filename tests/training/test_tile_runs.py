"""Runs on tiles: the same numbers with workers and after a stop; the tiles of a model; what does not work together."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg import Predictor
from detseg.checkpoints import load_checkpoint
from detseg.cli import main
from detseg.tiling import Tiling

pytestmark = pytest.mark.usefixtures("no_images")

TILES = ("--tile", "128", "--image-size", "64", "--epochs", "2", "--augment", "light", "--empty-tiles", "0.5")


@pytest.fixture(scope="module")
def straight(parts: Path, train: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without an interruption and without workers."""
    run: Path = train(parts, tmp_path_factory.mktemp("tiles") / "run", *TILES)
    return run


def weights_equal(first: Path, second: Path) -> bool:
    a, b = (load_checkpoint(run / "last.safetensors").weights for run in (first, second))
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_the_tiles_are_saved_and_used(
    straight: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "tile = 128" in (straight / "config.toml").read_text()
    assert Predictor(straight, "cpu").preprocessing.tiling == Tiling(128, 0.2, whole_image=True)
    assert len((straight / "split.json").read_text()) > 0
    assert {row["image_id"] for row in json.loads((straight / "predictions.json").read_text())} <= {1, 2}
    capsys.readouterr()
    assert main(["predict", str(straight), str(parts / "val"), "--output", str(tmp_path), "--device", "cpu"]) == 0
    assert "images are cut into tiles of 128 px that overlap by 20%" in capsys.readouterr().out
    files = ["--split", "val", "--device", "cpu", "--workers", "0", "--output", str(tmp_path / "e")]
    assert main(["evaluate", str(straight), *files, "--loss"]) == 0
    trained = json.loads((straight / "metrics.json").read_text())
    again = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert again["bbox"] == trained["bbox"]
    assert again["tiling"] == {"size": 128, "overlap": 0.2, "whole_image": True}
    assert main(["evaluate", str(straight), *files, "--tile", "0"]) == 0
    assert "tiling" not in json.loads((tmp_path / "e" / "metrics.json").read_text())


def test_evaluate_predict_and_export_agree(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    assert main(["export", str(straight), "--images", "1"]) == 0
    assert main(["selfcheck", str(straight), "--images", "1"]) == 0
    assert Predictor(straight / "model.onnx").preprocessing.tiling == Tiling(128, 0.2, whole_image=True)


def test_workers_and_a_stop_change_nothing(
    straight: Path, parts: Path, small: tuple[str, ...], rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run with workers is stopped in the middle of its second epoch, and resumed."""
    run, calls = tmp_path / "run", itertools.count()
    steps = len(rows(straight)) and load_checkpoint(straight / "last.safetensors").position.step
    backward = torch.Tensor.backward

    def stop(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if next(calls) == steps * 3 // 4:
            raise KeyboardInterrupt
        return backward(tensor, *args, **kwargs)

    arguments = ["train", str(parts), "--output", str(run), *small, *TILES, "--workers", "2", "--checkpoint-every", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", stop)
        assert main(arguments) == 130
    position = load_checkpoint(run / "last.safetensors").position
    assert position.epoch == 1
    assert position.micro_batches > 0
    assert not weights_equal(straight, run)
    assert main(["train", "--resume", str(run)]) == 0
    assert weights_equal(straight, run)
    assert rows(run) == rows(straight)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--tile", "128", "--cache", "disk"), "--cache disk with --tile 128: features of tiles are not cached"),
        (("--overlap", "0.3"), "--overlap without --tile"),
        (("--min-visible", "0.3"), "--min-visible without --tile"),
        (("--empty-tiles", "1"), "--empty-tiles without --tile"),
        (("--no-whole-image",), "--whole-image without --tile"),
    ],
)
def test_options_that_do_not_work_together(
    options: tuple[str, ...], part: str, parts: Path, small: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    code = main(["train", str(parts), "--output", str(tmp_path / "run"), *small, *options])
    assert code in (1, 2)
    assert part in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_classifier_has_no_tiles(colour_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(colour_folders), "--output", str(tmp_path), "--tile", "64", "--weights", "none"]
    assert main([*arguments, "--model", "mobilenet_v3_small", "--device", "cpu"]) == 1
    assert "--tile 64: a classifier sees whole images" in capsys.readouterr().err


def test_a_set_without_large_images_is_said(
    parts: Path, train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(parts, tmp_path / "run", "--tile", "384", "--image-size", "192", "--subset", "1")
    assert "no training image is larger than a tile of 384 px" in capsys.readouterr().out


def test_weights_of_a_run_on_tiles_keep_them(straight: Path, parts: Path, train: Any, tmp_path: Path) -> None:
    run = train(parts, tmp_path / "run", "--weights", str(straight), "--image-size", "64", "--subset", "1")
    assert Predictor(run, "cpu").preprocessing.tiling == Tiling(128, 0.2, whole_image=True)
