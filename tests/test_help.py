"""Test the help: the common options in at most 60 lines, all of them with --help-all, no types, every default."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from detseg.cli import main
from detseg.command_line.commands import BENCHMARKS, COMMANDS, Command
from detseg.command_line.help import MANY, command_help, terminal_width
from detseg.options.defaults import DEMO
from detseg.options.field import help_text

ALL = {command.name: command for command in (*COMMANDS.values(), *BENCHMARKS.values())}
COMMON = [
    "--classes", "--val", "--task", "--model", "--weights", "--image-size", "--freeze", "--augment", "--epochs",
    "--minutes", "--batch-size", "--lr", "--output", "--resume", "--device",
]  # fmt: skip
"""The options of ``train`` that its short help has."""


def flags(text: str) -> list[str]:
    """The flags that stand at the beginning of a line."""
    return re.findall(r"^  (--\S+)", text, flags=re.MULTILINE)


def test_the_help_of_train_has_the_common_options_in_groups() -> None:
    text = command_help(COMMANDS["train"], 80, everything=False)
    assert flags(text) == COMMON
    lines = text.splitlines()
    assert lines[:3] == ["usage: detseg train [DATA] [OPTIONS]", "", "Train a model on a folder of labelled images."]
    assert lines[-2:] == [
        "--config FILE reads options from a TOML file; flags take precedence.",
        "detseg train --help-all lists all 89 options.",
    ]
    assert len(COMMANDS["train"].options) == 89
    titles = [line for line in lines[3:-2] if line and not line.startswith(" ")]
    assert titles[:3] == [
        "Arguments",
        "Location and format of the data",
        "Division of the data into training, validation and test images",
    ]
    assert "  --epochs N            epochs to train. Default: 10 (as the published" in lines


@pytest.mark.parametrize("command", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize("width", [80, 90, 100])
def test_short_help_has_at_most_60_lines(command: Command, width: int) -> None:
    lines = command_help(command, width, everything=False).splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= width
    everything = command_help(command, width, everything=True).splitlines()
    assert max(map(len, everything)) <= width
    assert (len(everything) > 60) == (len(command.options) > MANY), "control"


@pytest.mark.parametrize("command", ALL.values(), ids=list(ALL))
def test_all_help_has_every_option_with_its_default(command: Command) -> None:
    text = command_help(command, 100, everything=True)
    printed = " ".join(text.split())
    demo = DEMO if command.name == "train" else {}
    named = {flag.replace("[no-]", "") for flag in flags(text)}
    for name, option in command.options.items():
        assert f" {name.upper()} " in printed if name in command.positional else option.flag in named
        described = demo.get(name) if name not in command.positional else None
        assert " ".join(help_text(option.item, described).split()) in printed
    assert len(flags(text)) == len(command.options) - len(command.positional), "each once"


@pytest.mark.parametrize("command", ALL.values(), ids=list(ALL))
def test_help_names_no_types(command: Command) -> None:
    text = command_help(command, 100, everything=True)
    for noise in ("type:", "null", "NoneType", "None", "Union", "<class", "typing", "list["):
        assert noise not in text
    assert "TEXT" not in text, "every text has a form of its own"


def test_short_texts_have_the_numbers_of_the_long_ones() -> None:
    briefs = [item for item in fields(COMMANDS["train"].config_class) if item.metadata["brief"]]
    assert len(briefs) > 5
    for item in briefs:
        assert item.metadata["common"]
        assert numbers(item.metadata["brief"]) <= numbers(help_text(item)), item.name
    assert not numbers("0.5") <= numbers("50"), "control"


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.]*\d|\d", text))


def test_every_optional_option_states_its_default() -> None:
    without_default = {
        "run", "predictions", "ground_truth", "resume", "replay", "split_file", "group", "trainable_layers",
        "model", "weights",
    }  # fmt: skip
    for command in ALL.values():
        for name, option in command.options.items():
            is_off = option.item.default is False
            is_required = command.positional.get(name, "?") != "?"
            assert "Default: " in help_text(option.item) or is_off or is_required or name in without_default, name


def test_the_form_of_each_kind_of_value() -> None:
    text = command_help(COMMANDS["train"], 100, everything=True)
    for form in (
        "--epochs N", "--lr X", "--freeze {none,stem,backbone,neck,rpn}", "--[no-]val-loss", "--one-based ",
        "--milestones N,N,...", "--classes A,B,...", "--linear-probe-epochs {half,N}", "--output FOLDER",
        "--model NAME",
    ):  # fmt: skip
        assert f"\n  {form}" in text


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("20", 60), ("300", 100), ("x", None)])
def test_the_width_is_that_of_the_terminal_within_limits(
    columns: str, width: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width or (width is None and 60 <= terminal_width() <= 100)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["train", "--help"], "usage: detseg train [DATA] [OPTIONS]"),
        (["train", "--epochs", "x", "-h"], "usage: detseg train [DATA] [OPTIONS]"),
        (["predict", "--help-all"], "usage: detseg predict RUN IMAGES ... [OPTIONS]"),
        (["benchmark", "--help"], "usage: detseg benchmark COMPARISON [OPTIONS]"),
        (["benchmark", "transfer", "--help"], "usage: detseg benchmark transfer [DATA] [OPTIONS]"),
        (["benchmark", "step", "--help"], "usage: detseg benchmark step [OPTIONS]"),
    ],
)
def test_help_is_printed_once_and_exits_with_0(
    words: list[str], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == first
    assert (printed.out.count("usage:"), printed.err) == (1, "")
