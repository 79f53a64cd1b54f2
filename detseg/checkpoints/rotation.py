"""The last checkpoints of a run: the newest, and older ones for when it is corrupt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from detseg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from detseg.errors import DataError

LAST = "last.safetensors"


def checkpoint_path(folder: Path, age: int) -> Path:
    """``last.safetensors`` (age 0), ``last-1.safetensors``, ..."""
    return folder / (LAST if age == 0 else f"last-{age}.safetensors")


def rotate(folder: Path, keep: int) -> None:
    """Make room for a new ``last``: each checkpoint_path becomes one older, at most ``keep`` are left with the new one.

    ``last`` itself stays in its place, so that there is one at any moment.
    """
    for age in range(keep - 2, 0, -1):
        if checkpoint_path(folder, age).is_file():
            checkpoint_path(folder, age).replace(checkpoint_path(folder, age + 1))
    last = checkpoint_path(folder, 0)
    if keep < 2 or not last.is_file():
        return
    spare = folder / f".{LAST}.spare"
    spare.unlink(missing_ok=True)
    try:
        os.link(last, spare)
    except OSError:  # a file system without hard links
        shutil.copyfile(last, spare)
    spare.replace(checkpoint_path(folder, 1))


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each that is not.

    One that cannot be read is set aside under its name with ``.damaged``, so that nothing takes it again.

    Returns:
        None for a run that has none yet: it was stopped before its first, and begins anew.

    Raises:
        DataError: there are some, but none can be read.
    """
    lines: list[str] = []
    files = [path for age in range(_oldest(folder) + 1) if (path := checkpoint_path(folder, age)).is_file()]
    for path in files:
        try:
            return load_checkpoint(path), lines
        except DataError as error:
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            lines.append(f"warning: {error}; set aside as {aside.name}")
    set_aside = sorted(folder.glob(f"{Path(LAST).stem}*.damaged"))
    if files or set_aside:
        names = ", ".join(path.name for path in set_aside)
        raise DataError(
            f"{folder}: no checkpoint of this run can be read ({names}); bring back a copy, or start a new run with "
            f"--weights {folder / 'best.safetensors'}"
        )
    return None, lines


def _oldest(folder: Path) -> int:
    ages = [path.stem.rpartition("-")[2] for path in folder.glob("last-*.safetensors")]
    return max((int(age) for age in ages if age.isdigit()), default=0)
