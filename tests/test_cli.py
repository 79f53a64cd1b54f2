"""Test the command line: fast help, precedence of flags over TOML, unknown keys, exit codes."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from detseg.cli import COMMANDS, main, parse
from detseg.options import TrainConfig
from detseg.options.text import to_toml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_option_with_its_default(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for item in fields(COMMANDS[command][0]):
        assert item.name.replace("_", "-") in printed or item.name in printed
        assert " ".join(item.metadata["help"].split())[:20] in printed


def test_every_optional_option_states_its_default() -> None:
    without_default = {
        "run",
        "images",
        "predictions",
        "ground_truth",
        "resume",
        "split_file",
        "group",
        "trainable_layers",
    }
    for config_class, _, _ in COMMANDS.values():
        for item in fields(config_class):
            assert "efault" in item.metadata["help"] or item.name in without_default, (
                f"{config_class.__name__}.{item.name}"
            )


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "predict.py", "inspect_data.py"])
def test_help_is_fast_and_does_not_import_torch(script: str) -> None:
    def seconds(arguments: list[str]) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run(arguments, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    help_seconds = seconds([sys.executable, str(ROOT / "tools" / script), "--help"])
    assert help_seconds < 1.0 + seconds([sys.executable, "-c", "pass"])


def test_flags_take_precedence_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('epochs = 3\nlr = 0.5\nclasses = ["a", "b"]\ndata = "here"\nval_loss = false\n')
    config = parse("train", ["--config", str(file), "--epochs", "5"])
    assert (config.epochs, config.lr, config.classes, config.data) == (5, 0.5, ["a", "b"], "here")
    assert (config.val_loss, config.seed) == (False, 0)
    assert parse("train", [f"--config={file}", "there", "--val-loss"]).data == "there"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("epoch = 3\n", "epoch"), ('epochs = "three"\n', "epochs"), ("epochs = \n", "run.toml"), ("lr = [1]\n", "lr")],
)
def test_a_bad_config_is_an_error(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(SystemExit) as caught:
        parse("train", ["--config", str(file)])
    assert caught.value.code == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--epochs", "x"], ["--nothing", "1"], ["--bad-instances", "keep"]])
def test_a_bad_flag_is_an_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("train", arguments)
    assert caught.value.code == 2


def test_a_saved_config_is_equal_when_read_again() -> None:
    name = 'a "quoted" \\ näme'
    config = TrainConfig(data=name, classes=["ä", "b"], epochs=3, lr=1e-5, milestones=[1, 2], val_loss=False)
    assert TrainConfig(**tomllib.loads(to_toml(config))) == config
    assert TrainConfig(**tomllib.loads(to_toml(TrainConfig()))) == TrainConfig()


def test_bad_input_prints_one_line_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "Traceback" not in error


def test_no_command_and_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["fly"]) == 2
    assert main(["--help"]) == 0
    assert "train" in capsys.readouterr().out


def test_positional_arguments() -> None:
    config = parse("evaluate", ["runs/a", "DATA", "--split", "all"])
    assert (config.run, config.data, config.split) == ("runs/a", "DATA", "all")
    assert parse("evaluate", ["--split", "test", "runs/a"]).run == "runs/a"
    config = parse("predict", ["runs/a", "x.jpg", "y.jpg", "--no-draw"])
    assert (config.run, config.images, config.draw) == ("runs/a", ["x.jpg", "y.jpg"], False)
