"""Write the text of ``--help`` and ``--help-all`` from the options of a command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from typing import Any, get_args, get_origin

from detseg.command_line.commands import NAMES, Command
from detseg.command_line.values import alternatives, choices
from detseg.options.defaults import DEMO
from detseg.options.field import Option
from detseg.options.field import help_text as option_help

HELP, HELP_ALL = ("-h", "--help"), "--help-all"
MANY = 20
"""Options from which on the short help is limited to the common ones."""
INDENT, COLUMN = 2, 24
"""Columns where flags and their texts begin."""
NARROWEST, WIDEST = 60, 100
"""Limits of the length of lines, in characters."""


def requested(words: Sequence[str]) -> str:
    """Which help the words ask for: "--help-all", "--help" or none, ""."""
    before = words[: words.index("--")] if "--" in words else words
    if HELP_ALL in before:
        return HELP_ALL
    return "--help" if any(word in HELP for word in before) else ""


def terminal_width() -> int:
    """Length of the lines of help: that of the terminal, between 60 and 100 characters."""
    text = os.environ.get("COLUMNS", "")
    try:
        columns = int(text) if text.isdecimal() else os.get_terminal_size().columns
    except OSError:  # no terminal
        columns = WIDEST
    return max(NARROWEST, min(WIDEST, columns))


def program_help() -> str:
    """The text of ``detseg --help``."""
    rows = _names(NAMES)
    return f"usage: detseg COMMAND [OPTIONS]\n\n{rows}\n\ndetseg COMMAND --help lists the options of a command."


def comparisons(benchmarks: dict[str, Command]) -> str:
    """The text of ``detseg benchmark --help``."""
    rows = _names({name: command.text for name, command in benchmarks.items()})
    return f"usage: detseg benchmark COMPARISON [OPTIONS]\n\n{rows}"


def command_help(command: Command, width: int, *, everything: bool) -> str:
    """The help of a command: all options in groups, or without ``everything`` the common ones of many.

    Args:
        width: maximum length of a line in characters; a longer word is not broken.
    """
    options = command.options
    is_short = not everything and len(options) > MANY
    demo = DEMO if command.name == "train" else {}
    parts = [command.usage, "", *_wrapped(command.text, width, "", "")]
    named = [(name.upper(), _text(options[name], None, is_short)) for name in command.positional]
    parts += _section("Arguments", named, width)
    for title, names in _groups(command.config_class, options).items():
        rows = [
            (_form(options[name]), _text(options[name], demo.get(name), is_short))
            for name in names
            if name not in command.positional and (options[name].item.metadata["common"] or not is_short)
        ]
        parts += _section(title, rows, width)
    parts += ["", "--config FILE reads options from a TOML file; flags take precedence."]
    if is_short:
        parts += [f"detseg {command.name} --help-all lists all {len(options)} options."]
    return "\n".join(parts)


def _names(texts: dict[str, str]) -> str:
    column = max(map(len, texts))
    return "\n".join(f"  {name:{column}}  {text}" for name, text in texts.items())


def _groups(config_class: type[Any], options: Iterable[str]) -> dict[str, list[str]]:
    """Return title -> options of each group: of the class itself, then of the classes that it inherits."""
    classes = [config_class, *reversed(config_class.__mro__[1:])]
    groups = {}
    for cls in classes:
        own = [name for name in inspect.get_annotations(cls) if name in options]
        if own:
            groups[_title(cls)] = own
    return groups


def _title(cls: type[Any]) -> str:
    first = (cls.__doc__ or cls.__name__).splitlines()[0]
    return first.partition(".")[0].partition(";")[0].replace("`", "")


def _section(title: str, rows: list[tuple[str, str]], width: int) -> list[str]:
    lines = ["", title] if rows else []
    for form, text in rows:
        fits = len(form) <= COLUMN - INDENT - 2
        first = f"{'':{INDENT}}{form}".ljust(COLUMN) if fits else " " * COLUMN
        lines += [] if fits else [f"{'':{INDENT}}{form}"]
        lines += _wrapped(text, width, first, " " * COLUMN)
    return lines


def _wrapped(text: str, width: int, first: str, other: str) -> list[str]:
    """Break a text at its blanks into lines that begin with ``first`` and ``other``."""
    lines, line = [], first
    is_empty = True
    for word in text.split():
        if not is_empty and len(line) + 1 + len(word) > width:
            lines.append(line)
            line, is_empty = other, True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line]


def _text(option: Option, demo: Any, is_short: bool) -> str:
    brief: str = option.item.metadata["brief"]
    return brief if is_short and brief else option_help(option.item, demo)


def _form(option: Option) -> str:
    """A flag with a short form of its value, such as ``--epochs N``."""
    if option.is_switch:
        return option.flag if option.item.default is False else f"--[no-]{option.flag[2:]}"
    return f"{option.flag} {option.item.metadata['value'] or _value(option.kind)}"


def _value(kind: Any) -> str:
    parts = alternatives(kind)
    lists = [get_args(part)[0] for part in parts if get_origin(part) is list]
    words = choices(kind) + ["N"] * (int in parts) + ["X"] * (float in parts)
    if words:
        return "{" + ",".join(words) + "}" if len(words) > 1 else words[0]
    if lists:
        return {int: "N,N,...", float: "X,X,...", str: "A,B,..."}[lists[0]]
    return "TEXT"
