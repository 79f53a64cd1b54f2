"""Runs with data echoing: the same numbers with workers and after a stop; where it is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.checkpoints import load_checkpoint
from detseg.cli import main

pytestmark = pytest.mark.usefixtures("no_images")

ECHO = (
    *("--echo", "3", "--decoded-limit", "0", "--freeze", "none", "--augment", "light", "--epochs", "2"),
    *("--model", "fasterrcnn_mobilenet_v3_large_fpn_slim", "--image-size", "64"),
)


def weights_equal(first: Path, second: Path) -> bool:
    a, b = (load_checkpoint(run / "last.safetensors").weights for run in (first, second))
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def test_workers_and_a_stop_change_nothing(
    parts: Path, train: Any, small: tuple[str, ...], rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run with workers is stopped in the middle of a group of its second epoch, and resumed."""
    straight: Path = train(parts, tmp_path / "straight", *ECHO)
    steps = load_checkpoint(straight / "last.safetensors").position.step
    assert steps == 2 * 3 * 2, "two epochs of two groups, each three times"
    run, calls, backward = tmp_path / "run", itertools.count(), torch.Tensor.backward

    def stop(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if next(calls) == steps - 1:
            raise KeyboardInterrupt
        return backward(tensor, *args, **kwargs)

    arguments = ["train", str(parts), "--output", str(run), *small, *ECHO, "--workers", "2", "--checkpoint-every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", stop)
        assert main(arguments) == 130
    position = load_checkpoint(run / "last.safetensors").position
    assert position.epoch == 1
    assert position.micro_batches % 3 != 0
    assert not weights_equal(straight, run), "control"
    assert main(["train", "--resume", str(run)]) == 0
    assert weights_equal(straight, run)
    assert rows(run) == rows(straight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze", "backbone"), "--echo 2 with a frozen backbone: its features are cached"),
        ((), "--echo 2: each image is decoded once and cached for later epochs (--decoded-limit 4)"),
        (("--decoded-limit", "0", "--augment", "none"), "--echo 2 with --augment none"),
    ],
)
def test_options_with_which_it_has_no_effect(
    options: tuple[str, ...], message: str, parts: Path, small: tuple[str, ...], tmp_path: Path, capsys: Any
) -> None:
    arguments = [*small, "--freeze", "none", "--augment", "light", "--echo", "2", *options]
    assert main(["train", str(parts), "--output", str(tmp_path / "run"), *arguments]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_remedy_for_a_frozen_backbone_works(parts: Path, train: Any, tmp_path: Path) -> None:
    options = ("--freeze", "backbone", "--cache", "off", "--decoded-limit", "0", "--augment", "light")
    run = train(parts, tmp_path / "run", "--echo", "2", "--epochs", "1", *options)
    assert "echo = 2" in (run / "config.toml").read_text()
