"""Cache the decoded images of a run at the network's input size, in one memory-mapped file for all workers."""

from __future__ import annotations

import mmap
import os
import tempfile
import warnings
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable
from detseg.preprocess import Preprocessing
from detseg.runtime.files import FULL

DEFAULT_LIMIT = 4 * 2**30
"""Bytes: about 4,500 images of 480 x 640, or 1,700 of 800 x 1066. Data that is read often should fit into memory."""

IS_SUPPORTED = hasattr(os, "pwrite")
"""Whether the platform can share a file without a name: POSIX can; elsewhere nothing is cached."""

Image = npt.NDArray[np.uint8]


class DecodedImages:
    """Cache of upright, resized images before any augmentation; the worker that decodes an image first stores it.

    The file has no name and is deleted when the last process closes it, however the run ends; so it is never read by a
    later run, and its content is never older than the run. If an image is edited during a run, the cached one is used.

    Each row has its own position in the file and a flag that is written after the pixels. Workers that decode a row
    simultaneously write the same bytes to the same position. Workers of any start method share the file; any other
    copy (by ``pickle`` or ``copy``) caches nothing.

    Args:
        table, preprocessing: those of the :class:`Dataset` that uses it.
        folder: folder of the file; on a disk (a folder in memory uses memory).
        limit: maximum bytes of cached pixels. Above it, only the first rows of the table that fit are cached.

    Attributes:
        rows: number of cached rows.
        size: their size in bytes.

    Raises:
        OSError: no file can be created in ``folder``.
    """

    def __init__(
        self,
        table: AnnotationTable,
        preprocessing: Preprocessing,
        folder: str | os.PathLike[str],
        *,
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        self.table, self.preprocessing, self.folder = table, preprocessing, Path(folder)
        sizes = [preprocessing.geometry(record.size_hw, record.orientation).network_hw for record in table]
        self._sizes_hw: npt.NDArray[np.int64] = np.array(sizes, np.int64).reshape(-1, 2)
        stops = np.cumsum(3 * self._sizes_hw.prod(axis=1))
        self.rows = int(np.searchsorted(stops, limit, side="right")) if IS_SUPPORTED else 0
        self.size = int(stops[self.rows - 1]) if self.rows else 0
        # first all flags, then all images
        self._starts: npt.NDArray[np.int64] = self.rows + np.concatenate([[0], stops[: self.rows]]).astype(np.int64)
        if not IS_SUPPORTED:
            self._open(None)
            return
        with tempfile.TemporaryFile(dir=self.folder) as file:
            os.ftruncate(file.fileno(), max(1, self.rows + self.size))
            self._open(os.dup(file.fileno()))

    def get(self, row: int) -> Image | None:
        """Read-only uint8 [h, w, 3], or None if this row is not cached (yet)."""
        if not 0 <= row < self.rows or self._map is None or not self._map[row]:
            return None
        height, width = self._sizes_hw[row].tolist()
        pixels = np.frombuffer(self._map, np.uint8, 3 * height * width, int(self._starts[row]))
        return pixels.reshape(height, width, 3)

    def put(self, row: int, image: Image) -> None:
        """Cache uint8 [h, w, 3] for this row, if it is one of the cached rows.

        If the disk is full, this process stops caching with a warning; the run continues.
        """
        if not 0 <= row < self.rows or self._map is None:
            return
        assert image.shape == (*self._sizes_hw[row], 3), f"row {row}: {image.shape} is not the network's input size"
        try:
            # Written, not assigned to the map: if the disk is full, a write fails, but an assignment kills the process.
            _write(self._file, np.ascontiguousarray(image).data.cast("B"), int(self._starts[row]))
            _write(self._file, memoryview(b"\1"), row)
        except OSError as error:
            if error.errno not in FULL:
                raise
            warnings.warn(
                f"{self.folder}: no space to cache decoded images ({error}); the others are decoded in each epoch",
                stacklevel=2,
            )
            self.rows = min(self.rows, row)

    def _open(self, descriptor: int | None) -> None:
        self._file = -1 if descriptor is None else descriptor
        self._map = None
        if descriptor is not None:
            self._map = mmap.mmap(descriptor, max(1, int(self._starts[-1])), prot=mmap.PROT_READ)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in ("_file", "_map")}
        if self._map is None:
            return state | {"descriptor": None}
        from multiprocessing.reduction import DupFd  # POSIX only

        spawning = get_spawning_popen() is not None
        return state | {"descriptor": DupFd(self._file) if spawning else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        descriptor = state.pop("descriptor")
        vars(self).update(state)
        self._open(None if descriptor is None else descriptor.detach())

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)


def _write(descriptor: int, content: memoryview, start: int) -> None:
    """Write all of ``content`` at ``start``; one call of ``pwrite`` may write only a part."""
    while len(content):
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written
