"""What a run states when one of its files cannot be written: what is kept, and the command that continues it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detseg.runtime.files import WriteError
from detseg.runtime.run_folder import RunFolder
from detseg.training.finished_run import resume_command


@contextmanager
def stating_what_is_kept(folder: Path, command: str = "") -> Iterator[None]:
    """Add to a :class:`WriteError` in the block what is kept of the run in ``folder``, and how to continue it.

    Args:
        command: that continues it; that of its kind of run by default.
    """
    try:
        yield
    except WriteError as error:
        raise WriteError(error.errno or 0, error.problem, _remedy(RunFolder(folder), command)) from error


def _remedy(run: RunFolder, command: str) -> str:
    if not run.config.is_file():
        return "nothing was trained yet. Free space, then repeat the command"
    kept = f"{run.last.name} is intact" if run.last.is_file() else "there is no checkpoint yet"
    return f"{kept}. Free space, then continue with: {command or resume_command(run.path)}"


def images_warning(folder: Path, error: WriteError) -> str:
    """Return a warning for result images that could not be written, which are no reason to lose a run."""
    return (
        f"warning: {error.problem}; all other results are written. Free space, then draw the images with: "
        f"{resume_command(folder)}"
    )
