"""Rotate the last checkpoints of a run: the newest, and older ones as a fallback if the newest is corrupt."""

from __future__ import annotations

import os
from pathlib import Path

from detseg.checkpoints.checkpoint import Checkpoint, load_checkpoint
from detseg.checkpoints.tensor_file import CorruptFileError
from detseg.errors import DataError
from detseg.runtime.files import copy_file
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
        copy_file(last, spare)
    spare.replace(run.checkpoint(1))


def latest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, and a warning for each that is corrupt.

    A corrupt file is renamed to its name plus ``.damaged``, so that it is not loaded again. One that cannot be read for
    another reason is as good as it was: it is left alone, and no older one is used in its place.

    Returns:
        None for a run without checkpoints: it was stopped before the first one, and starts from the beginning.

    Raises:
        DataError: the newest intact checkpoint is of a newer version or of another program, or all are corrupt.
        OSError: the newest one cannot be opened or read.
    """
    warnings: list[str] = []
    reasons: dict[str, str] = {}
    run = RunFolder(folder)
    files = [path for age in range(_oldest(folder) + 1) if (path := run.checkpoint(age)).is_file()]
    for path in files:
        try:
            return load_checkpoint(path), warnings
        except CorruptFileError as error:
            new_path = path.with_name(path.name + ".damaged")
            path.replace(new_path)
            warnings.append(f"warning: {error}; renamed to {new_path.name}")
            reasons[new_path.name] = str(error).replace(f"{path}: ", "")
        except (DataError, OSError) as error:
            raise type(error)(f"{error}. It is not corrupt and was left as it is; no older one is used") from error
    renamed = sorted(path.name for path in folder.glob(f"{run.last.stem}*.damaged"))
    if renamed:
        new_run = f", or start a new run with --weights {run.best}" if run.best.is_file() else ""
        causes = [f"{name}: {reasons[name]}" if name in reasons else name for name in renamed]
        raise DataError(
            f"{folder}: no checkpoint of this run can be read ({', '.join(causes)}); restore a copy{new_run}"
        )
    return None, warnings


def _oldest(folder: Path) -> int:
    ages = [path.stem.rpartition("-")[2] for path in folder.glob("last-*.safetensors")]
    return max((int(age) for age in ages if age.isdigit()), default=0)
