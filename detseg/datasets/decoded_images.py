"""The images of a run at the network's size, decoded once: one memory-mapped file for all workers."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import warnings
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable
from detseg.preprocess import Preprocessing

DEFAULT_LIMIT = 4 * 2**30
"""Bytes: about 4,500 images of 480 x 640, or 1,700 of 800 x 1066. What is read often should fit into memory."""

Image = npt.NDArray[np.uint8]


class DecodedImages:
    """Upright, resized images before any augmentation, each kept by whichever worker decodes it first.

    The file has no name and ends with the last process that holds it, however the run ends; so it is never read by a
    later run, and what it holds is as old as the run at most. An image that is edited during a run stays as it was.

    Each row has a place of its own and a flag that is written after the pixels. Workers that decode one row at the same
    time write the same bytes to the same place. Workers of any start method share the file; any other copy (by
    ``pickle`` or ``copy``) keeps nothing.

    Args:
        table, preprocessing: those of the :class:`Dataset` that it is given to.
        folder: where the file takes its room; on a disk (a folder in memory takes memory).
        limit: most bytes of pixels that are kept. Over it the table's first rows are, as many as there is room for.

    Attributes:
        rows: number of rows that are kept.
        size: bytes that they take.

    Raises:
        OSError: no file can be made in ``folder``.
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
        self.rows = int(np.searchsorted(stops, limit, side="right"))
        self.size = int(stops[self.rows - 1]) if self.rows else 0
        # flags first, then the images one after the other
        self._starts: npt.NDArray[np.int64] = self.rows + np.concatenate([[0], stops[: self.rows]]).astype(np.int64)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            os.ftruncate(file.fileno(), max(1, self.rows + self.size))
            self._open(os.dup(file.fileno()))

    def get(self, row: int) -> Image | None:
        """uint8 [h, w, 3] that cannot be written to, or None if this row is not here (yet)."""
        if not 0 <= row < self.rows or self._map is None or not self._map[row]:
            return None
        height, width = self._sizes_hw[row].tolist()
        pixels = np.frombuffer(self._map, np.uint8, 3 * height * width, int(self._starts[row]))
        return pixels.reshape(height, width, 3)

    def put(self, row: int, image: Image) -> None:
        """Keep uint8 [h, w, 3] for this row, if it is one of those that are kept.

        A full disk ends the keeping in this process with a warning; the run goes on.
        """
        if not 0 <= row < self.rows or self._map is None:
            return
        assert image.shape == (*self._sizes_hw[row], 3), f"row {row}: {image.shape} is not the network's size"
        try:
            # Written and not assigned: where the disk is full, a write fails, but an assignment ends the process.
            _write(self._file, np.ascontiguousarray(image).data.cast("B"), int(self._starts[row]))
            _write(self._file, memoryview(b"\1"), row)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            warnings.warn(f"{self.folder}: no room to keep decoded images ({error}); decoding goes on", stacklevel=2)
            self.rows = min(self.rows, row)

    def _open(self, descriptor: int | None) -> None:
        self._file = -1 if descriptor is None else descriptor
        self._map = None
        if descriptor is not None:
            self._map = mmap.mmap(descriptor, max(1, int(self._starts[-1])), prot=mmap.PROT_READ)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_file", "_map")}
        spawning = get_spawning_popen() is not None and self._map is not None
        return kept | {"passed": DupFd(self._file) if spawning else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        passed = state.pop("passed")
        vars(self).update(state)
        self._open(None if passed is None else passed.detach())

    def __del__(self) -> None:
        if getattr(self, "_file", -1) >= 0:
            os.close(self._file)


def _write(descriptor: int, content: memoryview, start: int) -> None:
    """All of ``content`` at ``start``; one call may write a part."""
    while len(content):
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written
