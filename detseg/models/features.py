"""What frozen parts make of one image: computed once, it can stand for the image in every later step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.padding import FeatureMaps, SizeHW, by_padded_size, size_of

Level = str
"""Where features were taken: "pooled" (a classifier's, before its head), "backbone" or "neck"."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of one image, given to a model in the place of that image.

    Attributes:
        level: "pooled", "backbone" or "neck".
        maps: [1, C, h, w] by name, finest first; for "pooled" one [1, D]. float32, or float16 to save memory.
        size_hw: of the image, without padding.
        proposals: float32 [P, 4] of a frozen RPN in training; None if it learns, or there is none.
    """

    level: Level
    maps: FeatureMaps
    size_hw: SizeHW
    proposals: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """[3, H, W], as that of the image."""
        return torch.Size((3, *self.size_hw))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name: "maps.<name>", "proposals"."""
        maps = {f"maps.{name}": tensor for name, tensor in self.maps.items()}
        return maps if self.proposals is None else maps | {"proposals": self.proposals}

    @classmethod
    def from_tensors(cls, level: Level, size_hw: SizeHW, tensors: dict[str, Tensor]) -> FrozenFeatures:
        """Undo :meth:`tensors`, in whatever order a file gave them back."""
        named = [(name.removeprefix("maps."), value) for name, value in tensors.items() if name.startswith("maps.")]
        maps = dict(sorted(named, key=lambda one: (-one[1][0, 0].numel(), one[0])))
        return cls(level, maps, size_hw, tensors.get("proposals"))

    @property
    def nbytes(self) -> int:
        """Memory of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FrozenFeatures:
        """The same on ``device``."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.tensors().items()}
        return FrozenFeatures.from_tensors(self.level, self.size_hw, moved)

    def with_maps(self, dtype: torch.dtype) -> FrozenFeatures:
        """The same with maps of ``dtype`` in memory of their own; proposals stay float32."""
        layout = torch.contiguous_format
        maps = {name: tensor.to(dtype, copy=True, memory_format=layout) for name, tensor in self.maps.items()}
        return replace(self, maps=maps)

    def check_fits(self, dtype: torch.dtype) -> None:
        """Raise DataError for a finite number that is too large for ``dtype``."""
        for name, tensor in self.maps.items():
            largest = float(tensor.abs().amax()) if tensor.numel() else 0.0
            if torch.finfo(dtype).max < largest < torch.inf:
                raise DataError(
                    f"a feature of map {name!r} is {largest:.4g}, more than {dtype} holds; give --cache-dtype float32"
                )


Image = Tensor | FrozenFeatures


def of_each(
    images: Sequence[Tensor], compute: Callable[[Sequence[Tensor]], tuple[Level, FeatureMaps]], *, alone: bool
) -> list[FrozenFeatures]:
    """Features of images of any sizes, in their order.

    Args:
        compute: gives the level and the maps [N, C, h, w] of N images of equal padded size.
        alone: image by image, so that each depends on itself alone; else those of equal padded size together.
    """
    groups = [[index] for index in range(len(images))] if alone else by_padded_size(images)
    found: dict[int, FrozenFeatures] = {}
    for group in groups:
        level, maps = compute([images[index] for index in group])
        for row, index in enumerate(group):
            own = {name: tensor[row : row + 1] for name, tensor in maps.items()}
            found[index] = FrozenFeatures(level, own, size_of(images[index]))
    return [found[index] for index in range(len(images))]


def split_inputs(
    images: Sequence[Image], levels: Sequence[Level], arch: str
) -> tuple[list[Tensor], list[FrozenFeatures]]:
    """A batch as images, or as features; the other list is empty.

    Raises:
        DataError: some of each, or features of a level that is not frozen in this model.
    """
    tensors, features = _divided(images)
    if tensors and features:
        raise DataError(f"{len(features)} of {len(images)} images of the batch are features; give either, not both")
    wrong = {one.level for one in features} - set(levels)
    if wrong:
        known = ", ".join(levels) or "none, as its backbone is not frozen"
        raise DataError(f"{arch}: it was given features of level {min(wrong)}; it takes those of level {known}")
    return tensors, features


def _divided(images: Sequence[Image]) -> tuple[list[Tensor], list[FrozenFeatures]]:
    tensors = [image for image in images if isinstance(image, Tensor)]
    return tensors, [image for image in images if isinstance(image, FrozenFeatures)]


def as_float(maps: FeatureMaps) -> FeatureMaps:
    """Maps that were kept in float16 as float32; others as they are."""
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in maps.items()}
