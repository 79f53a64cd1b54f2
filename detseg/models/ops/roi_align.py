"""RoIAlign with a fast backward pass on the CPU, and with a fast forward pass for channels-last maps.

torchvision's CPU backward scatters single values in one thread, which takes a fifth of a training step of a small
Mask R-CNN. Here each pixel of the map gathers its gradients instead: these are few large operations, which stay fast on
a shared machine, and each pixel adds in the order of the RoIs, so the bits do not depend on the number of threads. The
pooled values are computed by torchvision; for channels-last maps, which torchvision would copy first, they are gathered
too, and equal up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign

__all__ = ["GatheringRoIAlign"]

LARGEST_RATIO = 4
"""A bin reads (2 * ratio)² pixels; for larger ratios torchvision's loop needs much less memory."""
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class GatheringRoIAlign(MultiScaleRoIAlign):
    """A ``MultiScaleRoIAlign`` whose gradient is gathered; torchvision's on other devices and while tracing."""

    @classmethod
    def like(cls, pooler: MultiScaleRoIAlign) -> GatheringRoIAlign:
        """Return a pooler with the settings of ``pooler``, including its scales."""
        new = cls(
            pooler.featmap_names,
            pooler.output_size,
            pooler.sampling_ratio,
            canonical_scale=pooler.canonical_scale,
            canonical_level=pooler.canonical_level,
        )
        new.scales, new.map_levels = pooler.scales, pooler.map_levels
        return new.train(pooler.training)

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        names = [name for name in x if name in self.featmap_names]
        maps = [x[name] for name in names]
        if not self._can_gather(maps):
            return super().forward(x, boxes, image_shapes)
        return _Pool.apply(self, names, boxes, image_shapes, *maps)

    def _can_gather(self, maps: list[Tensor]) -> bool:
        return (
            torch.is_grad_enabled()
            and (any(level.requires_grad for level in maps) or all(_is_channels_last(level) for level in maps))
            and all(level.device.type == "cpu" and level.dtype in DTYPES for level in maps)
            and 0 < self.sampling_ratio <= LARGEST_RATIO
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )


class _Pool(torch.autograd.Function):
    """torchvision's pooling over all levels in the forward pass, ``gradient_of_maps`` in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        pooler: GatheringRoIAlign,
        names: list[str],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
        *maps: Tensor,
    ) -> Tensor:
        pooled, all_boxes = None, torch.cat(boxes)
        gathered = all(_is_channels_last(level) and level.dtype == all_boxes.dtype for level in maps)
        if pooler.scales is None or not gathered:
            pooled = MultiScaleRoIAlign.forward(pooler, dict(zip(names, maps, strict=True)), boxes, image_shapes)
        image = torch.cat([torch.full((len(image_boxes),), index) for index, image_boxes in enumerate(boxes)])
        levels = pooler.map_levels(boxes) if len(maps) > 1 else torch.zeros_like(image)
        if pooled is None:
            pooled = pooled_from_maps(maps, all_boxes, image, levels, pooler)
        ctx.save_for_backward(all_boxes, image, levels)
        ctx.scales, ctx.ratio = list(pooler.scales), pooler.sampling_ratio
        ctx.maps = [(level.shape, level.dtype, _is_channels_last(level)) for level in maps]
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image, levels = ctx.saved_tensors
        double = any(dtype == torch.float64 for _, dtype, _ in ctx.maps)
        compute_dtype = torch.float64 if double else torch.float32
        scaled = boxes.to(compute_dtype) * torch.tensor(ctx.scales, dtype=compute_dtype)[levels][:, None]
        shapes = [shape for shape, _, _ in ctx.maps]
        with torch.autocast("cpu", enabled=False):
            gradients = gradient_of_maps(gradient.to(compute_dtype), scaled, image, levels, shapes, ctx.ratio)
        result: list[Tensor | None] = [None] * 4
        for grad_map, (_, dtype, channels_last) in zip(gradients, ctx.maps, strict=True):
            needed = ctx.needs_input_grad[len(result)]
            result.append((grad_map if channels_last else _channels_first(grad_map)).to(dtype) if needed else None)
        return tuple(result)


def pooled_from_maps(
    maps: tuple[Tensor, ...], boxes: Tensor, image: Tensor, level: Tensor, pooler: MultiScaleRoIAlign
) -> Tensor:
    """Pool RoIs [K, C, bins, bins] with channels last in memory, from maps [B, C, H, W] of the same format.

    Args:
        boxes: [K, 4] in pixels of the images, in the dtype of the maps.
        image, level: [K], indices of the image and the map of each RoI.
    """
    (rows, columns), channels = pooler.output_size, maps[0].shape[1]
    result = maps[0].new_empty(len(boxes), rows * columns, channels)
    for index, (feature_map, scale) in enumerate(zip(maps, pooler.scales, strict=True)):
        rois = (level == index).nonzero()[:, 0]
        height, width = feature_map.shape[2:]
        x1, y1, x2, y2 = (boxes[rois] * scale).unbind(1)
        weight_y, y = axis_taps(y1, y2, rows, pooler.sampling_ratio, torch.tensor(height))
        weight_x, x = axis_taps(x1, x2, columns, pooler.sampling_ratio, torch.tensor(width))
        weight, pixel = _outer(weight_y, weight_x, torch.mul), _outer(y * width, x, torch.add)
        pixel += (image[rois] * (height * width))[:, None, None, None, None]
        bags = (len(rois) * rows * columns, -1) if len(rois) else (0, 1)
        table = feature_map.permute(0, 2, 3, 1).reshape(-1, channels)
        pooled = embedding_bag(pixel.view(bags), table, mode="sum", per_sample_weights=weight.view(bags))
        result[rois] = pooled.view(len(rois), rows * columns, channels)
    return result.view(len(boxes), rows, columns, channels).permute(0, 3, 1, 2)


def _outer(rows: Tensor, columns: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Combine [K, R, T] and [K, C, U] to [K, R, C, T, U]: one value for each pixel that each bin reads."""
    return combine(rows[:, :, None, :, None], columns[:, None, :, None, :])


def gradient_of_maps(
    gradient: Tensor, boxes: Tensor, image: Tensor, level: Tensor, shapes: list[torch.Size], ratio: int
) -> list[Tensor]:
    """Compute the gradients of maps [B, C, H, W], with channels last in memory, from the gradient of the pooled RoIs.

    All maps are concatenated to one list of pixels, because every separate operation has to synchronize threads.

    Args:
        gradient: [K, C, bins, bins] of float32 or float64.
        boxes: [K, 4] in pixels of the RoI's map, in the dtype of ``gradient``.
        image: [K], index of the image of each RoI.
        level: [K], index of the map that each RoI is pooled from.
        ratio: samples per bin along one axis.
    """
    channels = gradient.shape[1]
    height, width = (torch.tensor([shape[axis] for shape in shapes])[level] for axis in (2, 3))
    counts = [shape[0] * shape[2] * shape[3] for shape in shapes]
    offset = torch.tensor([0, *counts]).cumsum(0)[level] + image * height * width
    x1, y1, x2, y2 = boxes.unbind(1)
    weight_y, y = axis_taps(y1, y2, gradient.shape[2], ratio, height)
    weight_x, x = axis_taps(x1, x2, gradient.shape[3], ratio, width)
    row = offset[:, None, None] + y * width[:, None, None]
    weight = _outer(weight_y, weight_x, torch.mul).flatten()
    pixel = _outer(row, x, torch.add).flatten()
    used = weight.nonzero()[:, 0]
    # a stable sort keeps the RoIs of one pixel in their order, which is the order of addition
    pixel, order = pixel[used].sort(stable=True)
    used = used[order]
    ends = torch.bincount(pixel, minlength=sum(counts)).cumsum(0)
    gradients = embedding_bag(
        used // (y.shape[2] * x.shape[2]),
        gradient.permute(0, 2, 3, 1).reshape(-1, channels).contiguous(),
        torch.cat([ends.new_zeros(1), ends]),
        mode="sum",
        per_sample_weights=weight[used],
        include_last_offset=True,
    )
    return [
        grad_map.view(shape[0], *shape[2:], channels).permute(0, 3, 1, 2)
        for grad_map, shape in zip(gradients.split(counts), shapes, strict=True)
    ]


def axis_taps(start: Tensor, end: Tensor, bins: int, ratio: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights and positions [K, bins, 2 * ratio] of the pixels that each bin reads along one axis.

    The rules and the order of operations are torchvision's: a RoI is at least one pixel long, a sample more than one
    pixel outside the map has weight zero, and a closer one uses the border pixel. If several samples of a bin read the
    same pixel, one entry has the sum of their weights, and the others have zero.

    Args:
        start: [K], like ``end`` and ``size``, the length of the map that the RoI is pooled from; ``size`` may be a
            scalar for all.
    """
    size = size[..., None, None]
    length = (end - start).clamp(min=1) / bins
    steps = torch.arange(bins, dtype=start.dtype)[:, None] * length[:, None, None]
    inner = (torch.arange(ratio, dtype=start.dtype) + 0.5) * length[:, None, None] / ratio
    position = start[:, None, None] + steps + inner
    inside = (position >= -1) & (position <= size)
    position = torch.minimum(torch.where(inside, position, 0).clamp(min=0), size - 1)
    low = position.floor()
    share = position - low  # 0 for a sample outside
    weight = torch.stack([inside * (1 - share), share], dim=3).flatten(2) / ratio
    index = low.long()
    index = torch.stack([index, torch.minimum(index + 1, size - 1)], dim=3).flatten(2)
    same = index[..., :, None] == index[..., None, :]
    first = ~same.tril(-1).any(3)
    return (same * weight[..., None, :]).sum(3) * first, index


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def _channels_first(tensor: Tensor) -> Tensor:
    """Return ``tensor.contiguous()``, twice as fast: torch copies the transpose of each image in blocks."""
    result = torch.empty(tensor.shape, dtype=tensor.dtype)
    for target, image in zip(result, tensor, strict=True):
        target.flatten(1).copy_(image.permute(1, 2, 0).flatten(0, 1).t())
    return result
