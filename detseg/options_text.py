"""Write the options of a command as TOML text or as command-line arguments."""

from __future__ import annotations

import json
from dataclasses import fields


def to_toml(config: object) -> str:
    """Return the options of a config as flat TOML text; None is omitted, because TOML has no null."""
    lines = []
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if value is not None:
            # numbers, booleans, lists and escaped strings are written alike in JSON and TOML
            lines.append(f"{item.name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def to_flags(config: object, *, exclude: tuple[str, ...] = ()) -> list[str]:
    """Return the options of a config that differ from the defaults as command-line arguments, without ``exclude``."""
    arguments = []
    default = type(config)()
    for item in fields(config):  # type: ignore[arg-type]
        value, flag = getattr(config, item.name), item.name.replace("_", "-")
        if item.name in exclude or value == getattr(default, item.name):
            continue
        if isinstance(value, bool):
            arguments.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            arguments += [f"--{flag}", value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))]
    return arguments
