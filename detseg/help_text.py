"""The text of ``detseg COMMAND --help``, from the fields of its config, without the slow import of jsonargparse."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from detseg.options.field import help_text as option_help

CONFIG_HELP = "TOML file with the same options; flags take precedence"


def is_requested(arguments: Sequence[str]) -> bool:
    """Whether the arguments of a command ask for its help."""
    return "-h" in arguments or "--help" in arguments


def help_text(
    usage: str,
    description: str,
    options: Sequence[Field[Any]],
    types: Mapping[str, Any],
    positional: Mapping[str, str],
    demo: Mapping[str, Any],
) -> str:
    """Return the help of a command.

    Args:
        usage: the line that shows how the command is called.
        description: what the command does.
        options: fields of the config in the order of the text.
        types: name of each field -> its type.
        demo: name of each option that has another value for the demo set -> that value.
        positional: names of the fields that are positional arguments -> their number ("" for one).
    """
    parser = argparse.ArgumentParser(usage=usage, description=description)
    parser.add_argument("--config", help=f"{CONFIG_HELP} (type: str)")
    for item in options:
        kind, flag = types[item.name], f"--{item.name.replace('_', '-')}"
        text = f"{option_help(item, demo.get(item.name))} (type: {type_text(kind)}{_default(item)})"
        if item.name in positional:
            parser.add_argument(item.name, help=text)
        elif kind in (bool, bool | None):
            parser.add_argument(flag, f"--no-{flag[2:]}", action="store_true", help=text)
        elif get_origin(kind) is Literal:
            parser.add_argument(flag, choices=get_args(kind), help=text)
        else:
            parser.add_argument(flag, help=text)
    return parser.format_help()


def type_text(kind: Any) -> str:
    """A type in the words of the help: ``int``, ``str or list``, ``coco, voc or yolo``; None is left out."""
    if kind is NoneType:
        return ""
    if get_origin(kind) is Literal:
        return _either([str(value) for value in get_args(kind)])
    if get_origin(kind) is list:
        return "list"
    if get_args(kind):
        return _either([text for text in map(type_text, get_args(kind)) if text])
    return str(kind.__name__)


def _default(item: Field[Any]) -> str:
    """The default value, unless it means that the value is chosen or found, which the help text states."""
    return "" if item.default in (MISSING, None, "") else f", default: {item.default}"


def _either(texts: list[str]) -> str:
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]
