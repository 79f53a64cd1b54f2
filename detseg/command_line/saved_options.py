"""Read the options that a run has saved in its config.toml, which may have been edited."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from detseg.command_line.commands import COMMANDS
from detseg.command_line.values import checked, shown
from detseg.errors import in_file
from detseg.old_names import current_options
from detseg.options.text import flat_options


def read_saved_options(path: Path, command: str = "train") -> dict[str, Any]:
    """Name -> value of all options in a file, under their names of today.

    Args:
        command: whose options they are; those of other commands are not checked.

    Raises:
        DataError: not UTF-8, not TOML, or an option of another type than it has.
        OSError: the file cannot be read.
    """
    options = COMMANDS[command].options
    with in_file(path):
        values = current_options(flat_options(tomllib.loads(path.read_bytes().decode("utf-8"))))[0]
        return {
            name: checked(options[name], value, f"{name} = {shown(value)}") if name in options else value
            for name, value in values.items()
        }
