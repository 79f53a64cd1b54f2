"""Commands in the form in which the user called the program, for messages that suggest one."""

from __future__ import annotations

import shlex
import sys
from os import PathLike
from pathlib import Path

SCRIPTS = {
    name: f"{name}.py"
    for name in ("train", "evaluate", "predict", "convert", "describe", "export", "serve", "client", "benchmark")
}
SCRIPTS["inspect"] = "inspect_data.py"
"""Command -> its script in ``tools/``."""


def user_command(command: str, *arguments: str | PathLike[str]) -> str:
    """Return ``detseg predict RUN IMAGES``, ``python -m detseg predict ...`` or ``python tools/predict.py ...``.

    It is the form of this process; ``detseg`` in other programs, such as notebooks.
    """
    words = shlex.join(str(argument) for argument in arguments)
    return f"{_program(Path(sys.argv[0] if sys.argv else ''), command)} {words}".rstrip()


def _program(called: Path, command: str) -> str:
    if called.name == "__main__.py" and called.parent.name == "detseg":
        return f"python -m detseg {command}"
    if called.name in SCRIPTS.values() and _is_script(called):
        script = called.with_name(SCRIPTS.get(command, called.name))
        return f"python {shlex.quote(str(script))}" if command in SCRIPTS else f"python -m detseg {command}"
    return f"detseg {command}"


def _is_script(path: Path) -> bool:
    """Whether a file is one of this project's scripts, not the user's own of the same name."""
    try:
        return "from detseg.cli import main" in path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
