"""Compute the targets of the mask head from the pixels inside each box, without full-size float masks.

torchvision converts all masks of an image to float32, four times their size, before it pools from them. Pooling with
RoIAlign is separable: a target is ``rows @ mask @ columns``, with a small matrix of weights for each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mask_targets"]


def mask_targets(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Crop masks by boxes and resize them: equals torchvision's ``project_masks_on_boxes`` up to rounding.

    Args:
        masks: [N, H, W] of one image, in {0, 1}, of any dtype.
        boxes: float32 or float64 [K, 4] xyxy in pixels of the image.
        matched: int64 [K], index of the mask of each box.
        side: side of a target in pixels.

    Returns:
        [K, side, side] in the dtype of ``boxes``, in [0, 1].
    """
    targets = boxes.new_zeros(len(boxes), side, side)
    if not len(boxes):
        return targets
    (top, rows), (left, columns) = (
        axis_weights(boxes[:, axis], boxes[:, axis + 2], side, size)
        for axis, size in ((1, masks.shape[1]), (0, masks.shape[2]))
    )
    windows = zip(matched.tolist(), top.tolist(), left.tolist(), strict=True)
    for index, (mask, y, x) in enumerate(windows):
        window = masks[mask, y : y + rows.shape[2], x : x + columns.shape[2]].to(boxes.dtype)
        height, width = window.shape
        targets[index] = rows[index, :, :height] @ window @ columns[index, :, :width].t()
    return targets


def axis_weights(start: Tensor, end: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Return, along one axis, the first pixel of each box's window, int64 [K], and pixel weights [K, bins, window].

    The rules and the order of operations are those of torchvision's RoIAlign, with as many samples per bin as it has
    pixels, rounded up: a box is at least one pixel long, a sample more than one pixel outside the image has weight
    zero, and a closer one uses the border pixel.

    Args:
        start: [K], like ``end``, in pixels.
        size: length of the image along this axis.
    """
    length = (end - start).clamp(min=1)
    bin_length = length / bins
    samples = bin_length.ceil()[:, None, None]
    largest = int(samples.max())
    step = torch.arange(bins, dtype=start.dtype, device=start.device)[:, None] * bin_length[:, None, None]
    sample = torch.arange(largest, dtype=start.dtype, device=start.device)
    position = start[:, None, None] + step + (sample + 0.5) * bin_length[:, None, None] / samples
    counts = (sample < samples) & (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor()
    share = position - low
    weight = torch.stack([counts * (1 - share), counts * share], dim=3).flatten(2) / samples
    index = low.long()
    index = torch.stack([index, (index + 1).clamp(max=size - 1)], dim=3).flatten(2)
    first = index.flatten(1).amin(1)
    index = index - first[:, None, None]
    weights = start.new_zeros(len(start), bins, int(index.max()) + 1)
    return first, weights.scatter_add_(2, index, weight)
