"""Rotate the last checkpoints of a run: the newest, and older ones as a fallback if the newest is corrupt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from detseg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from detseg.errors import DataError
from detseg.runtime.run_folder import RunFolder


def rotate(folder: Path, keep: int) -> None:
    """Make room for a new ``last``: rename each checkpoint to the next age; at most ``keep`` remain with the new one.

    ``last`` itself is not removed, so that there is a checkpoint at any moment.
    """
    run = RunFolder(folder)
    for age in range(keep - 2, 0, -1):
        if run.checkpoint(age).is_file():
            run.checkpoint(age).replace(run.checkpoint(age + 1))
    last = run.last
    if keep < 2 or not last.is_file():
        return
    spare = folder / f".{last.name}.spare"
    spare.unlink(missing_ok=True)
    try:
        os.link(last, spare)
    except OSError:  # a file system without hard links
        shutil.copyfile(last, spare)
    spare.replace(run.checkpoint(1))


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and a warning for each that is corrupt.

    A file that cannot be read is renamed to its name plus ``.damaged``, so that it is not loaded again.

    Returns:
        None for a run without checkpoints: it was stopped before the first one, and starts from the beginning.

    Raises:
        DataError: there are checkpoints, but none can be read.
    """
    warnings: list[str] = []
    run = RunFolder(folder)
    files = [path for age in range(_oldest(folder) + 1) if (path := run.checkpoint(age)).is_file()]
    for path in files:
        try:
            return load_checkpoint(path), warnings
        except DataError as error:
            new_path = path.with_name(path.name + ".damaged")
            path.replace(new_path)
            warnings.append(f"warning: {error}; renamed to {new_path.name}")
    renamed = sorted(folder.glob(f"{run.last.stem}*.damaged"))
    if files or renamed:
        names = ", ".join(path.name for path in renamed)
        weights = f" with --weights {run.best}" if run.best.is_file() else ""
        raise DataError(
            f"{folder}: no checkpoint of this run can be read ({names}); restore a copy, or start a new run{weights}"
        )
    return None, warnings


def _oldest(folder: Path) -> int:
    ages = [path.stem.rpartition("-")[2] for path in folder.glob("last-*.safetensors")]
    return max((int(age) for age in ages if age.isdigit()), default=0)
