"""What the mask head has to learn, made from the pixels inside each box; full-frame float masks never exist.

torchvision turns all masks of an image into float32 frames, four times their size, before it pools from them. Pooling
with RoIAlign is separable: a target is ``rows @ mask @ columns``, with a small matrix of weights for each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mask_targets"]


def mask_targets(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Masks cut out by boxes and resized: torchvision's ``project_masks_on_boxes`` up to rounding.

    Args:
        masks: [N, H, W] of one image, in {0, 1}, of any dtype.
        boxes: float32 or float64 [K, 4] xyxy in its pixels.
        matched: int64 [K], the mask that each box is for.
        side: of a target, in pixels.

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
    where = zip(matched.tolist(), top.tolist(), left.tolist(), strict=True)
    for index, (mask, y, x) in enumerate(where):
        window = masks[mask, y : y + rows.shape[2], x : x + columns.shape[2]].to(boxes.dtype)
        height, width = window.shape
        targets[index] = rows[index, :, :height] @ window @ columns[index, :, :width].t()
    return targets


def axis_weights(start: Tensor, end: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis: the first pixel of each box's window, int64 [K], and the pixels' weights [K, bins, window].

    As in torchvision's RoIAlign, with as many samples in a bin as it has pixels, rounded up, and in its order of
    operations: a box is at least one pixel long, a sample farther than one pixel outside of the frame counts zero, a
    nearer one reads the border.

    Args:
        start: [K], as is ``end``, in pixels.
        size: length of the frame.
    """
    length = (end - start).clamp(min=1)
    bin_length = length / bins
    samples = bin_length.ceil()[:, None, None]
    most = int(samples.max())
    step = torch.arange(bins, dtype=start.dtype, device=start.device)[:, None] * bin_length[:, None, None]
    number = torch.arange(most, dtype=start.dtype, device=start.device)
    at = start[:, None, None] + step + (number + 0.5) * bin_length[:, None, None] / samples
    counts = (number < samples) & (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor()
    share = at - low
    weight = torch.stack([counts * (1 - share), counts * share], dim=3).flatten(2) / samples
    index = low.long()
    index = torch.stack([index, (index + 1).clamp(max=size - 1)], dim=3).flatten(2)
    first = index.flatten(1).amin(1)
    index = index - first[:, None, None]
    weights = start.new_zeros(len(start), bins, int(index.max()) + 1)
    return first, weights.scatter_add_(2, index, weight)
