"""Write options as TOML text or as command-line arguments, and read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

TABLE_OPTIONS = ("rename",)
"""Options whose value may be a table."""


def to_toml(config: object) -> str:
    """Return the options of a config as flat TOML text; None is omitted, because TOML has no null."""
    return toml_lines({item.name: getattr(config, item.name) for item in fields(config)})  # type: ignore[arg-type]


def toml_lines(values: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> str:
    """Return ``name = value`` lines, with ``comments`` behind them; values that are None are omitted."""
    lines = []
    for name, value in values.items():
        if value is None:
            continue
        comment = (comments or {}).get(name, "")
        # numbers, booleans, lists and escaped strings are written alike in JSON and TOML
        lines.append(f"{name} = {json.dumps(value)}" + (f"  # {comment}" if comment else ""))
    return "\n".join(lines) + "\n"


def flat_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a TOML document, whether they stand at its top level or in tables."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, dict) and name not in TABLE_OPTIONS else {name: value}
    return flat


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
