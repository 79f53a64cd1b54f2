"""Store targets in little memory, for caching them during a whole run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Target = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PackedTarget:
    """A target whose masks are stored as bits of their bounding windows: an eighth of a byte per pixel of an object.

    Attributes:
        others: the target without its masks.
        size_hw: height and width of the masks; None if the target has none.
        windows: int32 [N, 4]: first and one past the last row, then column, of each mask.
        bits: the packed bits of each mask's window, row by row.
    """

    others: Target
    size_hw: tuple[int, int] | None = None
    windows: npt.NDArray[np.int32] | None = None
    bits: tuple[npt.NDArray[np.uint8], ...] = ()

    @classmethod
    def pack(cls, target: Target) -> PackedTarget:
        """Pack ``target``; its tensors, which may be in memory shared with a worker, are copied."""
        others = {name: value.clone() for name, value in target.items() if name != "masks"}
        if "masks" not in target:
            return cls(others)
        masks = target["masks"].numpy()
        windows = np.array([_window(mask) for mask in masks], np.int32).reshape(-1, 4)
        bits = tuple(
            np.packbits(mask[top:bottom, left:right])
            for mask, (top, bottom, left, right) in zip(masks, windows, strict=True)
        )
        return cls(others, (masks.shape[1], masks.shape[2]), windows, bits)

    def unpack(self) -> Target:
        """The original target, as copies."""
        target = {name: value.clone() for name, value in self.others.items()}
        if self.size_hw is None or self.windows is None:
            return target
        masks = np.zeros((len(self.bits), *self.size_hw), np.uint8)
        for mask, bits, (top, bottom, left, right) in zip(masks, self.bits, self.windows, strict=True):
            height, width = bottom - top, right - left
            pixels = np.unpackbits(bits, count=height * width)
            mask[top:bottom, left:right] = pixels.reshape(height, width)
        return target | {"masks": torch.from_numpy(masks)}

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        return sum(value.nbytes for value in self.others.values()) + sum(bits.nbytes for bits in self.bits)


def _window(mask: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
