"""Test the command line: precedence of flags over TOML, one line for what is wrong, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from detseg.cli import main, parse
from detseg.command_line.commands import BENCHMARKS, COMMANDS, PARTS
from detseg.command_line.other_tools import OURS
from detseg.options import SpeedConfig, TrainConfig
from detseg.options.text import to_toml


def error_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a wrong command line prints, without "detseg" in front: one line; it exits with 2."""
    verb, *words = command.split()
    with pytest.raises(SystemExit) as caught:
        parse(verb, words)
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert printed.err.count("\n") == 1, printed.err
    return printed.err.removeprefix("detseg ").removesuffix("\n")


def test_flags_take_precedence_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('epochs = 3\nlr = 0.5\nclasses = ["a", "b"]\ndata = "here"\nval_loss = false\n')
    config = parse("train", ["--config", str(file), "--epochs", "5"])
    assert (config.epochs, config.lr, config.classes, config.data) == (5, 0.5, ["a", "b"], "here")
    assert (config.val_loss, config.seed) == (False, 0)
    assert parse("train", [f"--config={file}", "there", "--val-loss"]).data == "there"


def test_a_file_may_have_tables_and_the_required_arguments(tmp_path: Path) -> None:
    file = tmp_path / "predict.toml"
    file.write_text('run = "runs/a"\nimages = ["x.jpg"]\n[drawing]\nmin_score = 1\n')
    config = parse("predict", ["--config", str(file)])
    assert (config.run, config.images, config.min_score) == ("runs/a", ["x.jpg"], 1)
    assert parse("predict", ["runs/b", "y.jpg", "--config", str(file)]).images == ["y.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoch = 3\n", "'epoch' is not an option; did you mean epochs?"),
        ('epochs = "three"\n', 'epochs = "three": it must be a whole number, at least 1, such as 10'),
        ("epochs = true\n", "epochs = true: it must be a whole number, at least 1, such as 10"),
        ("lr = [1]\n", "lr = [1]: it must be a number above 0, such as 0.0005"),
        ("output = 3\n", "output = 3: it must be text in quotes"),
        ("val_loss = 1\n", "val_loss = 1: it must be true or false"),
        ("classes = [1]\n", "classes = [1]: it must be a list of texts, or a text with commas"),
        ("milestones = [1.5]\n", "milestones = [1.5]: it must be a list of whole numbers, such as [3,20]"),
        ("seed = 2020-01-01\n", "seed = 2020-01-01: it must be a whole number, at least 0, such as 1"),
        ('task = "det"\n', 'task = "det": it must be detect, segment, keypoints or classify; did you mean detect?'),
        ("epochs = \n", "Invalid value (at line 1, column 10)"),
    ],
)
def test_a_bad_file_is_one_line(text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    assert error_of(f"train --config {file}", capsys) == f"train: --config {file}: {expected}"


def test_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text("")
    for command in ("train", "benchmark"):
        error = error_of(f"{command} --config {tmp_path}/rum.toml", capsys)
        assert error == (
            f"{command}: --config {tmp_path}/rum.toml: no such file; {tmp_path} has no rum.toml; did you mean "
            f"{tmp_path}/run.toml?"
        )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("--task segmentation", "it must be detect, segment, keypoints or classify; did you mean segment?"),
        ("--freeze backbones", "it must be none, stem, backbone, neck or rpn; did you mean backbone?"),
        ("--bad-instances keep", "it must be drop, error or mend"),
        ("--epochs abc", "it must be a whole number, at least 1, such as 10"),
        ("--epochs 1.5", "it must be a whole number, at least 1, such as 10"),
        ("--epochs 0", "it must be at least 1"),
        ("--lr 1e-3,2", "it must be a number above 0, such as 0.0005"),
        ("--lr -1", "it must be a number above 0"),
        ("--ema 2", "it must be a number above 0 and below 1, such as 0.999"),
        ("--seed null", "it must be a whole number, at least 0, such as 1"),
        ("--milestones 1,x", "it must be a list of whole numbers, such as [3,20]"),
        (
            "--linear-probe-epochs haf",
            "it must be a whole number, at least 1, such as 1, or half; did you mean half?",
        ),
        ("--val-loss false", "it takes no value; use --val-loss or --no-val-loss"),
    ],
)
def test_a_wrong_value_is_one_line(command: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(f"train {command}", capsys) == f"train: {command}: {expected}"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train --batchsize 3", "train: --batchsize is not an option; did you mean --batch-size?"),
        ("train --epo 3", "train: --epo is not an option; did you mean --epochs?"),
        ("train --no-val-los", "train: --no-val-los is not an option; did you mean --no-val-loss?"),
        ("train --no-epochs", "train: --no-epochs is not an option; did you mean --epochs?"),
        ("train --imgsz 640", "train: --imgsz is not an option; did you mean --image-size?"),
        ("train --img-size=640", "train: --img-size is not an option; did you mean --image-size?"),
        ("train --batch 4", "train: --batch is not an option; did you mean --batch-size?"),
        ("train -b 4", "train: -b is not an option; did you mean --batch-size?"),
        ("train --lr0 0.1", "train: --lr0 is not an option; did you mean --lr?"),
        ("train --learning_rate 0.1", "train: --learning_rate is not an option; did you mean --lr?"),
        ("predict --conf 0.1", "predict: --conf is not an option; did you mean --min-score?"),
        ("train --frobnicate", "train: --frobnicate is not an option; detseg train --help-all lists all options"),
        ("train --epochs", "train: --epochs needs a value: a whole number, at least 1, such as 10"),
        ("train --output --val-loss", "train: --output needs a value: FOLDER"),
        ("train --config", "train: --config needs a value: a TOML file"),
        ("train a b", "train: 'b' is one argument too many; usage: detseg train [DATA] [OPTIONS]"),
        ("train a --data b", "train: data is given twice, as 'a' and with --data; give one"),
        ("train a --annotations b", "train: data a and --annotations b: give only one of them"),
        ("predict", "predict: RUN is missing; usage: detseg predict RUN IMAGES ... [OPTIONS]"),
        ("predict run", "predict: IMAGES is missing; usage: detseg predict RUN IMAGES ... [OPTIONS]"),
        ("benchmark basline", "benchmark: 'basline' is not a comparison; did you mean baseline?"),
        (
            "benchmark step --lr 1",
            "benchmark: --lr is not an option; detseg benchmark step --help-all lists all options",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(command: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(command, capsys) == expected


def test_names_of_other_tools_are_names_of_no_option() -> None:
    options = {name for command in (*COMMANDS.values(), *BENCHMARKS.values()) for name in command.options}
    assert set(OURS) <= options
    train = set(COMMANDS["train"].options)
    named_twice = [name for names in OURS.values() for name in names if name in train]
    assert set(named_twice) <= {"model", "weights"}, "they mean --run of the other commands"


def test_a_saved_config_is_equal_when_read_again() -> None:
    name = 'a "quoted" \\ näme'
    config = TrainConfig(data=name, classes=["ä", "b"], epochs=3, lr=1e-5, milestones=[1, 2], val_loss=False)
    assert TrainConfig(**tomllib.loads(to_toml(config))) == config
    assert TrainConfig(**tomllib.loads(to_toml(TrainConfig()))) == TrainConfig()


def test_bad_input_prints_one_line_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert error.count("\n") == 1


def test_no_command_and_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "detseg: 'trian' is not a command; did you mean train?\n"
    assert main(["fly"]) == 2
    assert capsys.readouterr().err == (
        "detseg: 'fly' is not a command; the commands are inspect, convert, train, evaluate, predict, export, "
        "selfcheck, serve, client, describe, pretrain, benchmark\n"
    )


def test_positional_arguments() -> None:
    config = parse("evaluate", ["runs/a", "DATA", "--split", "all"])
    assert (config.run, config.data, config.split) == ("runs/a", "DATA", "all")
    assert parse("evaluate", ["--split", "test", "runs/a"]).run == "runs/a"
    config = parse("predict", ["runs/a", "x.jpg", "--no-draw", "y.jpg"])
    assert (config.run, config.images, config.draw) == ("runs/a", ["x.jpg", "y.jpg"], False)
    assert parse("train", ["--data", "DATA"]) == parse("train", ["DATA"])
    assert parse("train", ["--", "--help"]).data == "--help", "what follows -- is no flag"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--batch_size", "3"], "batch_size", 3),
        (["--batch-size=3"], "batch_size", 3),
        (["--lr", ".5"], "lr", 0.5),
        (["--lr=1e-3"], "lr", 1e-3),
        (["--lr", "1", "--lr", "2"], "lr", 2),
        (["--milestones", "[1, 2]"], "milestones", [1, 2]),
        (["--milestones", "1,2"], "milestones", [1, 2]),
        (["--anchor-sizes", "null"], "anchor_sizes", None),
        (["--epochs", "null"], "epochs", None),
        (["--classes", "a,b"], "classes", "a,b"),
        (["--classes", '["a", "b"]'], "classes", ["a", "b"]),
        (["--classes", "[a, b]"], "classes", ["a", "b"]),
        (["--linear-probe-epochs", "half"], "linear_probe_epochs", "half"),
        (["--linear-probe-epochs", "4"], "linear_probe_epochs", 4),
        (["--checkpoint-every", "500"], "checkpoint_every", "500"),
        (["--norm-eval"], "norm_eval", True),
        (["--no-norm-eval"], "norm_eval", False),
        (["--no_val_loss"], "val_loss", False),
        (["--output=-x"], "output", "-x"),
    ],
)
def test_values(words: list[str], name: str, value: Any) -> None:
    read = getattr(parse("train", words), name)
    assert read == value
    assert name != "lr" or type(read) is float


def test_a_part_whose_speed_is_measured_follows_from_the_command() -> None:
    for part in PARTS:
        assert parse("benchmark", [part, "--output", "x"]) == SpeedConfig(part, "x")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell with pipes")
def test_a_closed_pipe_is_no_error() -> None:
    code = "from detseg.cli import main\nmain(['train', '--help-all'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
