"""Choose the tiles of a data set that are samples, and the objects that each tile shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.annotations.table import AnnotationTable
from detseg.boxes import xywh_to_xyxy
from detseg.preprocess import Geometry, Preprocessing
from detseg.runtime.seeds import derive_seed
from detseg.short_text import counted
from detseg.tiling import shown, visible_areas

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TileChoice:
    """Which objects and tiles are used.

    Attributes:
        min_visible: share of an object, relative to the tile that shows most of it, below which a tile ignores it.
        empty_tiles: share of the tiles without objects that are samples of an epoch; which ones changes with the epoch.
    """

    min_visible: float = 0.0
    empty_tiles: float = 1.0


ALL_TILES = TileChoice()


class TileSamples:
    """The tiles of a table that are samples, in the order of its rows; those without objects last if not all are used.

    Args:
        table: the images. Crowds and ignored instances are not objects.
        preprocessing: with a tiling.
        choice: which objects and tiles are used.
        seed: the run's seed, which with the epoch decides on the tiles without objects.

    Attributes:
        total: number of tiles of all images.
        empty: how many of them have no objects.
    """

    def __init__(
        self, table: AnnotationTable, preprocessing: Preprocessing, choice: TileChoice = ALL_TILES, seed: int = 0
    ) -> None:
        self.choice, self.seed = choice, seed
        rows, views = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        has_objects: list[npt.NDArray[np.bool_]] = [np.zeros(0, np.bool_)]
        heights, widths = table.height.tolist(), table.width.tolist()
        for row, orientation in enumerate(table.orientation.tolist()):
            stored = heights[row], widths[row]
            parts = preprocessing.views(stored if orientation < 5 else stored[::-1], orientation)
            instances = np.arange(table.start[row], table.stop[row])
            trained = instances[~(table.iscrowd[instances] | table.ignore[instances])]
            boxes = np.asarray(xywh_to_xyxy(table.boxes_xywh[trained]), np.float64)
            rows.append(np.full(len(parts), row))
            views.append(np.arange(len(parts)))
            windows = [part.window for part in parts]
            has_objects.append(np.asarray(shown(boxes, windows, choice.min_visible).any(axis=1), np.bool_))
        self._rows, self._views, filled = np.concatenate(rows), np.concatenate(views), np.concatenate(has_objects)
        self.total, self.empty = len(filled), int((~filled).sum())
        if choice.empty_tiles >= 1:
            self._filled, self._empty, self._used_empty = np.arange(self.total), np.zeros(0, np.int64), 0
            return
        self._filled, self._empty = np.flatnonzero(filled), np.flatnonzero(~filled)
        self._used_empty = round(choice.empty_tiles * len(self._empty))
        if not len(self._filled):  # a run needs samples
            self._used_empty = max(self._used_empty, min(1, len(self._empty)))
        self._empty = np.random.default_rng(derive_seed(seed)).permutation(self._empty)

    def __len__(self) -> int:
        return len(self._filled) + self._used_empty

    def find(self, index: int, epoch: int = 0) -> tuple[int, int]:
        """Row of the table and number of the view of sample ``index`` in an epoch; IndexError without such a sample."""
        index = range(len(self))[index]
        if index < len(self._filled):
            tile = self._filled[index]
        else:  # each epoch continues where the last one ended
            number = index - len(self._filled) + epoch * self._used_empty
            tile = self._empty[number % len(self._empty)]
        return int(self._rows[tile]), int(self._views[tile])

    def first_of(self, row: int) -> int:
        """The first sample with objects of a row of the table; 0 without one."""
        samples = np.flatnonzero(self._rows[self._filled] == row)
        return int(samples[0]) if len(samples) else 0

    def shown(
        self, boxes_xywh: npt.NDArray[np.float64], views: Sequence[Geometry], view: int
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
        """bool [N]: the objects of an image that are used in a view; float64 [N]: the share of the box that it shows.

        Args:
            boxes_xywh: float64 [N, 4].
            views: all views of the image.
        """
        boxes = np.asarray(xywh_to_xyxy(boxes_xywh), np.float64)
        windows = [part.window for part in views]
        areas = visible_areas(boxes, np.array([windows[view]]))[0]
        whole = boxes_xywh[:, 2:].prod(axis=1)
        return shown(boxes, windows, self.choice.min_visible)[view], areas / np.maximum(whole, 1e-12)

    def line(self, images: int) -> str:
        """The number of tiles for the terminal."""
        text = f"{counted(len(self), 'tile')} of {counted(images, 'image')} in an epoch: "
        text += f"{self.total - self.empty} with objects"
        if self.empty:
            used = self._used_empty if self.choice.empty_tiles < 1 else self.empty
            text += f", {used} of {self.empty} without (--empty-tiles)"
        return text


def view_counts(table: AnnotationTable, preprocessing: Preprocessing) -> Int64:
    """int64 [I]: number of views of each image; 1 without tiles."""
    if preprocessing.tiling is None:
        return np.ones(len(table), np.int64)
    return np.array([len(preprocessing.views(record.size_hw, record.orientation)) for record in table], np.int64)
