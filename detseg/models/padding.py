"""Stack images and feature maps of different sizes in one tensor. Padding is at the bottom and right, with zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from detseg.models.base import LAST_STRIDE

SizeHW = tuple[int, int]
FeatureMaps = dict[str, Tensor]
"""Feature maps float32 [N, C, h, w] by name, highest resolution first."""


class Shaped(Protocol):
    """A tensor, or features with the shape of their image."""

    @property
    def shape(self) -> torch.Size: ...


def size_of(image: Shaped) -> SizeHW:
    """Return height and width of a [..., H, W] tensor."""
    return int(image.shape[-2]), int(image.shape[-1])


def padded_hw(sizes_hw: Sequence[SizeHW]) -> SizeHW:
    """Return the smallest size that contains all these sizes, with sides that are multiples of 32 as in torchvision."""
    height, width = (max(sides) for sides in zip(*sizes_hw, strict=True))
    return -(-height // LAST_STRIDE) * LAST_STRIDE, -(-width // LAST_STRIDE) * LAST_STRIDE


def stack_padded(images: Sequence[Tensor]) -> Tensor:
    """Stack float32 [C, H, W] of any sizes to [N, C, H', W'] with sides that are multiples of 32."""
    target = padded_hw([size_of(image) for image in images])
    return torch.stack([_pad(image, target) for image in images])


def stack_maps(maps: Sequence[FeatureMaps]) -> FeatureMaps:
    """Stack the maps [1, C, h, w] of several images, each padded to the largest of its level, to [N, C, h', w'].

    ``h'`` and ``w'`` are the sizes that result if the images are padded together.
    """
    stacked = {}
    for name in maps[0]:
        level = [image_maps[name] for image_maps in maps]
        heights, widths = zip(*(size_of(tensor) for tensor in level), strict=True)
        stacked[name] = torch.cat([_pad(tensor, (max(heights), max(widths))) for tensor in level])
    return stacked


def by_padded_size(images: Sequence[Shaped]) -> list[list[int]]:
    """Return the indices of the images, grouped by the size of each image padded alone."""
    groups: dict[SizeHW, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(padded_hw([size_of(image)]), []).append(index)
    return list(groups.values())


def _pad(tensor: Tensor, target_hw: SizeHW) -> Tensor:
    height, width = size_of(tensor)
    return functional.pad(tensor, (0, target_hw[1] - width, 0, target_hw[0] - height))
