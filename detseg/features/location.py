"""Choose where features are cached, and the limit of their size."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from detseg.runtime.machine import free_memory

GB = 10**9
DISK_LIMIT = 20 * GB


@dataclass(frozen=True)
class Location:
    """Where features are cached. As text: "in memory", or "in FOLDER".

    Attributes:
        limit: maximum bytes of features.
        folder: None for memory.
    """

    limit: int
    folder: Path | None

    def __str__(self) -> str:
        return "in memory" if self.folder is None else f"in {self.folder}"


def cache_location(where: str, total: int, *, limit: int | None, folder: Path | None, world: int) -> Location:
    """Choose the location of ``total`` bytes of features.

    Args:
        where: "memory", "disk", or "auto": memory if all features fit and there is one process.
        limit: maximum bytes; None: half of the free memory or disk space, on disk at most :data:`DISK_LIMIT`.
        folder: on disk; None for :func:`default_folder`.
        world: number of processes.
    """
    memory = limit or free_memory() // 2
    if where == "memory" or (where == "auto" and world == 1 and total <= memory):
        return Location(memory, None)
    folder = folder or default_folder()
    if limit is None:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        limit = min(DISK_LIMIT, shutil.disk_usage(existing).free // 2)
    return Location(limit, folder)


def default_folder() -> Path:
    """Return ``~/.cache/detseg/features``, or the same below ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detseg" / "features"
