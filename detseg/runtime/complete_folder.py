"""Write a folder completely, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detseg.errors import DataError
from detseg.runtime.folder_lock import LOCK
from detseg.runtime.run_folder import locked

PART = ".detseg-part"
"""Name of the folder in which the content is written."""


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder``, whose content is moved up at the end of the block.

    If the block raises, nothing of it stays; what a killed process left is removed by the next one.

    Raises:
        DataError: ``folder`` is not empty, or in use.
        OSError: it cannot be created or written.
    """
    with locked(folder):
        part = folder / PART
        shutil.rmtree(part, ignore_errors=True)
        if any(path.name != LOCK for path in folder.iterdir()):
            raise DataError(f"{folder}: the folder is not empty; choose a new one")
        try:
            yield part
            for path in sorted(part.iterdir()):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
