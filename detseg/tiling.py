"""Cut large images into tiles: the grid, and which objects a tile shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detseg.errors import DataError

Float64 = npt.NDArray[np.float64]

DEFAULT_OVERLAP = 0.2
SMALLEST_OVERLAP, LARGEST_OVERLAP = 0.05, 0.8
"""Bounds of the overlap: parts of an object are recognized by what two tiles both show; and each tile costs time."""

SMALLEST_TILE, LARGEST_TILE = 1, 16_384
"""Bounds of the side of a tile in pixels."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles.

    Attributes:
        size: side of a tile in pixels of the upright original.
        overlap: share of its side that a tile at least has in common with the next one.
        whole_image: the network also gets each whole image, resized as without tiles, for objects that no tile shows
            whole.
    """

    size: int
    overlap: float = DEFAULT_OVERLAP
    whole_image: bool = True

    def __post_init__(self) -> None:
        if not SMALLEST_TILE <= self.size <= LARGEST_TILE:
            raise DataError(f"tile size {self.size} pixels: it must be from {SMALLEST_TILE} to {LARGEST_TILE}")
        if not SMALLEST_OVERLAP <= self.overlap <= LARGEST_OVERLAP:
            raise DataError(
                f"overlap {self.overlap:g} of tiles: it must be from {SMALLEST_OVERLAP} to {LARGEST_OVERLAP}; without "
                "an overlap, the parts of an object that is cut by a border cannot be merged"
            )

    def line(self) -> str:
        """The tiling for the terminal."""
        whole = "; also whole images, for larger objects" if self.whole_image else ""
        return f"images are cut into tiles of {self.size} px that overlap by {self.overlap:.0%} (--tile){whole}"


def changed_tiling(
    trained: Tiling | None, size: int | None, overlap: float | None, whole_image: bool | None
) -> Tiling | None:
    """The tiling that a model was trained with (None: none), with changes where a value is not None; size 0: none.

    Raises:
        DataError: a change of tiles, but there are none.
    """
    if size == 0 or (size is None and trained is None):
        if overlap is not None or whole_image is not None:
            name = "--overlap" if overlap is not None else "--whole-image"
            raise DataError(f"{name} without tiles: images are not cut; add --tile SIZE, or omit it")
        return None
    basis = trained or Tiling(size or 0)
    return Tiling(
        basis.size if size is None else size,
        basis.overlap if overlap is None else overlap,
        basis.whole_image if whole_image is None else whole_image,
    )


def starts(length: int, side: int, overlap: float) -> list[int]:
    """First pixels of the tiles along an axis of ``length`` pixels; the last tile is shifted inside.

    Neighbours have at least the share ``overlap`` of ``side`` in common. One tile if the axis is not longer than it.
    """
    if length <= side:
        return [0]
    step = max(1, int(side * (1 - overlap)))
    return [*range(0, length - side, step), length - side]


def visible_areas(boxes: Float64, windows: Float64) -> Float64:
    """float64 [T, N]: area of box j that window i shows.

    Args:
        boxes: float64 [N, 4] xyxy.
        windows: float64 [T, 4] xyxy.
    """
    low = np.maximum(windows[:, None, :2], boxes[None, :, :2])
    high = np.minimum(windows[:, None, 2:], boxes[None, :, 2:])
    return np.asarray((high - low).clip(min=0).prod(axis=2), np.float64)


def shown(
    boxes: Float64, windows: Sequence[tuple[float, float, float, float]], min_visible: float
) -> npt.NDArray[np.bool_]:
    """bool [T, N]: whether window i shows enough of box j for training.

    It shows at least the share ``min_visible`` of what the best of the windows shows of it: an object that is larger
    than every tile is learned in those that are full of it.

    Args:
        boxes: float64 [N, 4] xyxy.
        windows: T windows of one image, xyxy.
        min_visible: in [0, 1].
    """
    areas = visible_areas(boxes, np.array(windows, np.float64).reshape(-1, 4))
    enough = areas >= min_visible * areas.max(axis=0, initial=0)
    return np.asarray((areas > 0) & enough, np.bool_)
