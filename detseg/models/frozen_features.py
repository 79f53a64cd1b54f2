"""Features of one image computed by frozen parts: computed once, they replace the image in every later step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.padding import FeatureMaps, SizeHW, by_padded_size, size_of

Level = str
"""Layer of the features: "pooled" (before a classifier's head), "backbone" or "neck"."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of one image, passed to a model instead of that image.

    Attributes:
        level: "pooled", "backbone" or "neck".
        maps: [1, C, h, w] by name, finest first; for "pooled" one [1, D]. float32, or float16 to save memory.
        size_hw: of the image, without padding.
        proposals: float32 [P, 4] of a frozen RPN in training; None if the RPN is trainable, or there is none.
    """

    level: Level
    maps: FeatureMaps
    size_hw: SizeHW
    proposals: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """[3, H, W], the shape of the image."""
        return torch.Size((3, *self.size_hw))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name: "maps.<name>", "proposals"."""
        maps = {f"maps.{name}": tensor for name, tensor in self.maps.items()}
        return maps if self.proposals is None else maps | {"proposals": self.proposals}

    @classmethod
    def from_tensors(cls, level: Level, size_hw: SizeHW, tensors: dict[str, Tensor]) -> FrozenFeatures:
        """Inverse of :meth:`tensors`, for tensors in any order."""
        named = [(name.removeprefix("maps."), value) for name, value in tensors.items() if name.startswith("maps.")]
        maps = dict(sorted(named, key=lambda item: (-item[1][0, 0].numel(), item[0])))
        return cls(level, maps, size_hw, tensors.get("proposals"))

    @property
    def nbytes(self) -> int:
        """Memory of all tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FrozenFeatures:
        """Return the same features on ``device``."""
        moved = {name: value.to(device, non_blocking=non_blocking) for name, value in self.tensors().items()}
        return FrozenFeatures.from_tensors(self.level, self.size_hw, moved)

    def with_maps(self, dtype: torch.dtype) -> FrozenFeatures:
        """Return a copy with maps of ``dtype``; proposals stay float32."""
        layout = torch.contiguous_format
        maps = {name: tensor.to(dtype, copy=True, memory_format=layout) for name, tensor in self.maps.items()}
        return replace(self, maps=maps)

    def check_fits(self, dtype: torch.dtype) -> None:
        """Raise DataError if a finite value is too large for ``dtype``."""
        for name, tensor in self.maps.items():
            largest = float(tensor.abs().amax()) if tensor.numel() else 0.0
            if torch.finfo(dtype).max < largest < torch.inf:
                raise DataError(
                    f"a feature of map {name!r} is {largest:.4g}, too large for {dtype}; use --cache-dtype float32"
                )


Image = Tensor | FrozenFeatures


def compute_features(
    images: Sequence[Tensor], compute: Callable[[Sequence[Tensor]], tuple[Level, FeatureMaps]], *, alone: bool
) -> list[FrozenFeatures]:
    """Compute the features of images of any sizes, in their order.

    Args:
        compute: returns the level and the maps [N, C, h, w] of N images of equal padded size.
        alone: image by image, so that features depend on one image only; else batches of equal padded size.
    """
    groups = [[index] for index in range(len(images))] if alone else by_padded_size(images)
    features: dict[int, FrozenFeatures] = {}
    for group in groups:
        level, maps = compute([images[index] for index in group])
        for row, index in enumerate(group):
            image_maps = {name: tensor[row : row + 1] for name, tensor in maps.items()}
            features[index] = FrozenFeatures(level, image_maps, size_of(images[index]))
    return [features[index] for index in range(len(images))]


def split_inputs(
    images: Sequence[Image], levels: Sequence[Level], arch: str
) -> tuple[list[Tensor], list[FrozenFeatures]]:
    """Return a batch as a list of images and a list of features, of which one is empty.

    Raises:
        DataError: the batch mixes both, or has features of a level that is not frozen in this model.
    """
    tensors, features = _split_by_type(images)
    if tensors and features:
        raise DataError(
            f"{len(features)} of {len(images)} images of the batch are features; a batch must have only one kind"
        )
    wrong = {image.level for image in features} - set(levels)
    if wrong:
        supported = ", ".join(levels) or "none, as its backbone is not frozen"
        raise DataError(f"{arch}: cannot use features of level {min(wrong)}; supported levels: {supported}")
    return tensors, features


def _split_by_type(images: Sequence[Image]) -> tuple[list[Tensor], list[FrozenFeatures]]:
    tensors = [image for image in images if isinstance(image, Tensor)]
    return tensors, [image for image in images if isinstance(image, FrozenFeatures)]


def as_float(maps: FeatureMaps) -> FeatureMaps:
    """Convert float16 maps to float32; return others unchanged."""
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in maps.items()}
