"""RoIAlign with a fast backward on the CPU, and with a fast forward for maps that have channels last.

torchvision's CPU backward scatters one number at a time on a single thread, a fifth of a training step of a small
Mask R-CNN. Here each pixel of the map gathers what it is due instead: few large operations, so it also bears a machine
that is shared, and each pixel sums in the order of the RoIs, so the bits do not depend on the number of threads. The
values that it pools are torchvision's own; from maps with channels last, which torchvision would copy first, they are
gathered too, and equal up to rounding.
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
"""A bin has (2 * ratio)² taps: with more, torchvision's loop needs much less memory."""
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class GatheringRoIAlign(MultiScaleRoIAlign):
    """A ``MultiScaleRoIAlign`` whose gradient is gathered; on other devices and in a trace it is torchvision's."""

    @classmethod
    def like(cls, pooler: MultiScaleRoIAlign) -> GatheringRoIAlign:
        """The same pooler as ``pooler``, scales included."""
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
        if not self._gathers(maps):
            return super().forward(x, boxes, image_shapes)
        return _Pool.apply(self, names, boxes, image_shapes, *maps)

    def _gathers(self, maps: list[Tensor]) -> bool:
        return (
            torch.is_grad_enabled()
            and (any(one.requires_grad for one in maps) or all(_is_channels_last(one) for one in maps))
            and all(one.device.type == "cpu" and one.dtype in DTYPES for one in maps)
            and 0 < self.sampling_ratio <= LARGEST_RATIO
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )


class _Pool(torch.autograd.Function):
    """torchvision's pooling over all levels forward, ``gradient_of_maps`` backward."""

    @staticmethod
    def forward(
        ctx: Any,
        pooler: GatheringRoIAlign,
        names: list[str],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
        *maps: Tensor,
    ) -> Tensor:
        pooled, every = None, torch.cat(boxes)
        if pooler.scales is None or not all(_is_channels_last(one) and one.dtype == every.dtype for one in maps):
            pooled = MultiScaleRoIAlign.forward(pooler, dict(zip(names, maps, strict=True)), boxes, image_shapes)
        image = torch.cat([torch.full((len(one),), index) for index, one in enumerate(boxes)])
        levels = pooler.map_levels(boxes) if len(maps) > 1 else torch.zeros_like(image)
        if pooled is None:
            pooled = pooled_from_maps(maps, every, image, levels, pooler)
        ctx.save_for_backward(every, image, levels)
        ctx.scales, ctx.ratio = list(pooler.scales), pooler.sampling_ratio
        ctx.maps = [(one.shape, one.dtype, _is_channels_last(one)) for one in maps]
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        boxes, image, levels = ctx.saved_tensors
        double = any(dtype == torch.float64 for _, dtype, _ in ctx.maps)
        work = torch.float64 if double else torch.float32
        scaled = boxes.to(work) * torch.tensor(ctx.scales, dtype=work)[levels][:, None]
        shapes = [shape for shape, _, _ in ctx.maps]
        with torch.autocast("cpu", enabled=False):
            found = gradient_of_maps(gradient.to(work), scaled, image, levels, shapes, ctx.ratio)
        result: list[Tensor | None] = [None] * 4
        for one, (_, dtype, channels_last) in zip(found, ctx.maps, strict=True):
            needed = ctx.needs_input_grad[len(result)]
            result.append((one if channels_last else _channels_first(one)).to(dtype) if needed else None)
        return tuple(result)


def pooled_from_maps(
    maps: tuple[Tensor, ...], boxes: Tensor, image: Tensor, level: Tensor, pooler: MultiScaleRoIAlign
) -> Tensor:
    """RoIs [K, C, bins, bins] with channels last in memory, from maps [B, C, H, W] of that layout.

    Args:
        boxes: [K, 4] in pixels of the images, in the dtype of the maps.
        image, level: [K], the image and the map that each RoI is of.
    """
    (rows, columns), channels = pooler.output_size, maps[0].shape[1]
    result = maps[0].new_empty(len(boxes), rows * columns, channels)
    for number, (one, scale) in enumerate(zip(maps, pooler.scales, strict=True)):
        here = (level == number).nonzero()[:, 0]
        height, width = one.shape[2:]
        x1, y1, x2, y2 = (boxes[here] * scale).unbind(1)
        weight_y, y = axis_taps(y1, y2, rows, pooler.sampling_ratio, torch.tensor(height))
        weight_x, x = axis_taps(x1, x2, columns, pooler.sampling_ratio, torch.tensor(width))
        weight, pixel = _outer(weight_y, weight_x, torch.mul), _outer(y * width, x, torch.add)
        pixel += (image[here] * (height * width))[:, None, None, None, None]
        bags = (len(here) * rows * columns, -1) if len(here) else (0, 1)
        table = one.permute(0, 2, 3, 1).reshape(-1, channels)
        found = embedding_bag(pixel.view(bags), table, mode="sum", per_sample_weights=weight.view(bags))
        result[here] = found.view(len(here), rows * columns, channels)
    return result.view(len(boxes), rows, columns, channels).permute(0, 3, 1, 2)


def _outer(rows: Tensor, columns: Tensor, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[K, R, T] and [K, C, U] -> [K, R, C, T, U]: what stands for each tap of each bin."""
    return join(rows[:, :, None, :, None], columns[:, None, :, None, :])


def gradient_of_maps(
    gradient: Tensor, boxes: Tensor, image: Tensor, level: Tensor, shapes: list[torch.Size], ratio: int
) -> list[Tensor]:
    """The gradients of maps [B, C, H, W], with channels last in memory, from that of the RoIs pooled from them.

    All maps lie one after the other in one long list of pixels, as each operation on its own costs a wait for threads.

    Args:
        gradient: [K, C, bins, bins] of float32 or float64.
        boxes: [K, 4] in pixels of the RoI's map, in the dtype of ``gradient``.
        image: [K], the image that each RoI is of.
        level: [K], the map that each RoI is pooled from.
        ratio: samples in a bin along one axis.
    """
    channels = gradient.shape[1]
    height, width = (torch.tensor([shape[axis] for shape in shapes])[level] for axis in (2, 3))
    counts = [shape[0] * shape[2] * shape[3] for shape in shapes]
    begin = torch.tensor([0, *counts]).cumsum(0)[level] + image * height * width
    x1, y1, x2, y2 = boxes.unbind(1)
    weight_y, y = axis_taps(y1, y2, gradient.shape[2], ratio, height)
    weight_x, x = axis_taps(x1, x2, gradient.shape[3], ratio, width)
    row = begin[:, None, None] + y * width[:, None, None]
    weight = _outer(weight_y, weight_x, torch.mul).flatten()
    pixel = _outer(row, x, torch.add).flatten()
    used = weight.nonzero()[:, 0]
    # a stable sort leaves the RoIs of one pixel in their order, which is the order of the sum
    pixel, order = pixel[used].sort(stable=True)
    used = used[order]
    ends = torch.bincount(pixel, minlength=sum(counts)).cumsum(0)
    found = embedding_bag(
        used // (y.shape[2] * x.shape[2]),
        gradient.permute(0, 2, 3, 1).reshape(-1, channels).contiguous(),
        torch.cat([ends.new_zeros(1), ends]),
        mode="sum",
        per_sample_weights=weight[used],
        include_last_offset=True,
    )
    return [
        one.view(shape[0], *shape[2:], channels).permute(0, 3, 1, 2)
        for one, shape in zip(found.split(counts), shapes, strict=True)
    ]


def axis_taps(start: Tensor, end: Tensor, bins: int, ratio: int, size: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and positions [K, bins, 2 * ratio] of the pixels that each bin reads along one axis.

    The rules are torchvision's, in its order of operations: a RoI is at least one pixel long, a sample farther than
    one pixel outside of the map counts zero, a nearer one reads the border. A pixel that several samples of a bin
    read has all their weight at one place, and zero at the others.

    Args:
        start: [K], as are ``end`` and ``size``, the length of the map that the RoI is pooled from; [] is one for all.
    """
    size = size[..., None, None]
    length = (end - start).clamp(min=1) / bins
    steps = torch.arange(bins, dtype=start.dtype)[:, None] * length[:, None, None]
    inner = (torch.arange(ratio, dtype=start.dtype) + 0.5) * length[:, None, None] / ratio
    at = start[:, None, None] + steps + inner
    inside = (at >= -1) & (at <= size)
    at = torch.minimum(torch.where(inside, at, 0).clamp(min=0), size - 1)
    low = at.floor()
    share = at - low  # 0 for a sample outside
    weight = torch.stack([inside * (1 - share), share], dim=3).flatten(2) / ratio
    index = low.long()
    index = torch.stack([index, torch.minimum(index + 1, size - 1)], dim=3).flatten(2)
    same = index[..., :, None] == index[..., None, :]
    first = ~same.tril(-1).any(3)
    return (same * weight[..., None, :]).sum(3) * first, index


def _is_channels_last(one: Tensor) -> bool:
    return one.is_contiguous(memory_format=torch.channels_last) and not one.is_contiguous()


def _channels_first(found: Tensor) -> Tensor:
    """``found.contiguous()``; a plain transpose of each image is what torch copies in blocks, twice as fast."""
    result = torch.empty(found.shape, dtype=found.dtype)
    for one, image in zip(result, found, strict=True):
        one.flatten(1).copy_(image.permute(1, 2, 0).flatten(0, 1).t())
    return result
