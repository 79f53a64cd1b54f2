"""Create and lock the folder of a run, for all of its processes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from detseg.errors import DataError
from detseg.options.plan import Plan
from detseg.runtime.folder_lock import FolderLock
from detseg.runtime.processes import Processes
from detseg.runtime.run_folder import RunFolder, locked, new_run_folder
from detseg.training.make_plan import default_output


@contextmanager
def claimed_folder(plan: Plan, processes: Processes) -> Iterator[tuple[Path, FolderLock | None]]:
    """The folder of the run (``resume``, else ``output``, else a new one), locked by the main process for the block.

    A folder in which nothing was written is removed at the end.

    Returns:
        The folder, in every process, and the lock in the main process.

    Raises:
        DataError: the folder already contains a run, or is in use by another one.
    """
    with ExitStack() as stack:
        lock, path, problem = None, "", ""
        if processes.is_main:
            try:
                folder = Path(plan.run.resume or "")
                if not plan.run.resume:
                    folder = new_run_folder(plan.run.output, default_output(plan)).path
                path, lock = os.fspath(folder), stack.enter_context(locked(folder))
                if not plan.run.resume:
                    RunFolder(folder).check_is_new()  # another run may have ended since it was chosen
            except (DataError, OSError) as error:
                problem = str(error)
        path, problem = json.loads(processes.broadcast_bytes(json.dumps([path, problem]).encode()))
        if problem:
            raise DataError(problem)
        yield Path(path), lock
