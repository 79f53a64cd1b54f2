"""Expand the inputs of a command: paths, patterns that the shell did not expand, and a list on standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import BinaryIO

from detseg.errors import DataError
from detseg.media.files import exists
from detseg.short_text import one_line

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class InputPath:
    """One path of the inputs.

    Attributes:
        path: of a file or a folder.
        origin: "argument" if it was passed itself, "pattern" if a pattern matched it, "list" if it is a line of
            standard input.
    """

    path: Path
    origin: str = "argument"


def expand_inputs(inputs: Sequence[str], stdin: BinaryIO | None = None) -> list[InputPath]:
    """The paths that ``inputs`` name, in order; those that a pattern matches are sorted.

    A path that exists is never a pattern. In a pattern ``*``, ``?`` and ``[...]`` match names that do not begin with a
    dot, and ``**`` any folders; folders that match are read as those that are passed, except with ``**``, which matches
    the files in them itself. ``-`` reads a list from standard input: a path per line, or, if there is a zero byte
    (``find -print0``), between zero bytes.

    Args:
        stdin: read for ``-``; standard input by default.

    Raises:
        DataError: nothing matches a pattern, the list is empty, or ``-`` is given twice.
    """
    if list(inputs).count(STANDARD_INPUT) > 1:
        raise DataError("- is given twice; standard input can be read once")
    paths: list[InputPath] = []
    for text in inputs:
        if text == STANDARD_INPUT:
            paths += [InputPath(path, "list") for path in _listed(sys.stdin.buffer if stdin is None else stdin)]
        elif has_magic(text) and not os.path.lexists(text) and not exists(text):
            matches = sorted(glob(text, recursive=True))  # noqa: PTH207  (pathlib's patterns cannot be absolute)
            if "**" in text:
                matches = [match for match in matches if not Path(match).is_dir()]
            if not matches:
                raise DataError(f"{one_line(text)}: no file matches this pattern; ** matches folders of any depth")
            paths += [InputPath(Path(match), "pattern") for match in matches]
        else:
            paths.append(InputPath(Path(text)))
    return paths


def _listed(stdin: BinaryIO) -> list[Path]:
    """The paths in a list; empty lines are left out."""
    content = stdin.read()
    if b"\0" in content:
        names = content.split(b"\0")
    else:
        names = [line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    paths = [Path(os.fsdecode(name)) for name in names if name.strip()]
    if not paths:
        raise DataError("-: no paths on standard input; write one per line, such as: find photos -name '*.jpg'")
    return paths
