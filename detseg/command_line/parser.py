"""Read the words of a command line, and the file of ``--config``, into the options of a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detseg.command_line.commands import Command
from detseg.command_line.other_tools import OURS
from detseg.command_line.values import checked, expected, from_text, shown
from detseg.errors import DataError, reason_of
from detseg.nearest import did_you_mean, nearest
from detseg.old_names import current_options
from detseg.options.field import Option

CONFIG = "config"
"""The flag of a file of options; it is an option of all commands, and no field of any."""

SWITCH_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "0", "1")
"""Words that other tools expect after a switch."""


def read_options(command: Command, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the options that a command line and its file give, and a notice for each old name in the file.

    Args:
        command: what is called.
        words: the arguments after its name, under the names of today.

    Raises:
        DataError: an unknown option, a wrong type or choice, a missing or superfluous argument.
    """
    options = command.options
    flags, positional = _split(command, options, words)
    values: dict[str, Any] = {}
    notices: list[str] = []
    if CONFIG in flags:
        values, notices = _of_file(str(flags.pop(CONFIG)), options)
    for name, words_of_it in _by_position(command, positional).items():
        if name in flags:
            raise DataError(f"{name} is given twice, as {words_of_it[0]!r} and with {options[name].flag}; give one")
        several = command.positional[name] == "+"
        values[name] = words_of_it if several else from_text(options[name], words_of_it[0])
    for name, value in flags.items():
        if isinstance(value, list):
            texts = [from_text(options[name], text) for text in value]
            values[name] = [item for text in texts for item in (text if isinstance(text, list) else [text])]
        else:
            values[name] = value if isinstance(value, bool) else from_text(options[name], value)
    for name, number in command.positional.items():
        if number != "?" and name not in values:
            raise DataError(f"{name.upper()} is missing; {command.usage}")
    return command.fixed | values, notices


def read_toml(path: str) -> dict[str, Any]:
    """Return the options of a file, from its top level and its tables; DataError if it cannot be read."""
    import tomllib  # without a file, the command starts faster
    from pathlib import Path

    from detseg.options.text import flat_options
    from detseg.runtime.missing_path import missing_path

    try:
        if not Path(path).exists():
            raise missing_path(path, "file")
        with Path(path).open("rb") as file:
            return flat_options(tomllib.load(file))
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise DataError(f"--config {reason}" if path in reason else f"--config {path}: {reason}") from error


def config_file(words: Sequence[str]) -> str | None:
    """The file that ``--config`` names, if there is one; the last, as with all options."""
    for index in reversed(range(len(words))):
        flag, equals, text = words[index].partition("=")
        if flag == f"--{CONFIG}" and (equals or index + 1 < len(words)):
            return text if equals else words[index + 1]
    return None


def _split(
    command: Command, options: Mapping[str, Option], words: Sequence[str]
) -> tuple[dict[str, str | bool | list[str]], list[str]]:
    """Return name -> text, True or False, of each flag (texts of one that is given several times); and the other
    words."""
    flags: dict[str, str | bool | list[str]] = {}
    positional: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return flags, positional + rest
        if not _is_flag(word):
            positional.append(word)
            continue
        flag, equals, text = word.partition("=")
        name, is_on = _option_of(flag, command, options)
        following = text if equals else rest[0] if rest else None
        if name != CONFIG and options[name].is_switch:
            if equals or following in SWITCH_WORDS:
                on, off = options[name].flags
                raise DataError(f"{flag} {following}: it takes no value; use {on} or {off}")
            flags[name] = is_on
        elif following is None or (not equals and _is_flag(following)):
            raise DataError(f"{flag} needs a value{_needed(name, options)}")
        else:
            value = text if equals else rest.pop(0)
            earlier = flags.get(name)
            if name == CONFIG or earlier is None or not options[name].item.metadata["repeated"]:
                flags[name] = value
            else:
                flags[name] = [*([earlier] if isinstance(earlier, str) else earlier), value]  # type: ignore[misc]
    return flags, positional


def _is_flag(word: str) -> bool:
    """Whether a word is a flag, not a value: it begins with a dash, and is neither a number nor the dash alone."""
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _option_of(flag: str, command: Command, options: Mapping[str, Option]) -> tuple[str, bool]:
    """Return the option of a flag, and False if the flag turns it off. Underscores are as good as dashes."""
    name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else flag
    if name in options or name == CONFIG:
        return name, True
    positive = name.removeprefix("no_")
    if positive != name and positive in options and options[positive].is_switch:
        return positive, False
    raise DataError(f"{flag} is not an option{_suggestion(flag, command, options)}")


def _suggestion(flag: str, command: Command, options: Mapping[str, Option]) -> str:
    key = flag.lstrip("-").replace("-", "_").lower()
    ours = [name for name in options if key in OURS.get(name, ())]
    if ours:
        return f"; did you mean {options[ours[0]].flag}?"
    by_name = {form[2:]: form for option in options.values() for form in option.flags}
    close = nearest(key.replace("_", "-"), by_name)
    return f"; did you mean {by_name[close[0]]}?" if close else f"; detseg {command.name} --help-all lists all options"


def _needed(name: str, options: Mapping[str, Option]) -> str:
    return f": {options[name].item.metadata['value'] or expected(options[name])}" if name != CONFIG else ": a TOML file"


def _by_position(command: Command, words: Sequence[str]) -> dict[str, list[str]]:
    """Return name -> words of each positional argument that is given."""
    taken: dict[str, list[str]] = {}
    rest = list(words)
    for name, number in command.positional.items():
        count = len(rest) if number == "+" else 1
        if rest:
            taken[name], rest = rest[:count], rest[count:]
    if rest:
        raise DataError(f"{rest[0]!r} is one argument too many; {command.usage}")
    return taken


def _of_file(path: str, options: Mapping[str, Option]) -> tuple[dict[str, Any], list[str]]:
    """Return the options in a file under their names of today, and a notice for each old name."""
    values, notices = current_options(read_toml(path))
    values.pop("what", None)  # it chose the command
    for name, value in values.items():
        if name not in options:
            close = did_you_mean(name, options) or f"; the keys are {', '.join(sorted(options))}"
            raise DataError(f"--config {path}: {name!r} is not an option{close}")
        values[name] = checked(options[name], value, f"--config {path}: {name} = {shown(value)}")
    return values, [f"{path}: {notice}" for notice in notices]
