"""An RPN whose backward pass covers only the sampled anchors; proposals and losses are bit-equal to torchvision's.

A few hundred of tens of thousands of anchors are in the loss, but torchvision backpropagates through the convolutions
at every pixel of every map: on a CPU an eighth of a training step, and a third of one with a frozen backbone. Here the
gradient is computed only where it is not zero. Boxes are decoded only for the anchors before NMS, and targets only for
those in the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import boxes as box_ops

from detseg.models.ops.memory_format import channels_last

__all__ = ["SampledRPN"]

BETA = 1 / 9
"""``beta`` of the smooth L1 loss, as in torchvision's RPN."""


@dataclass(frozen=True)
class AnchorIndex:
    """Indices of the sampled anchors, in the order of the loss.

    Attributes:
        level, image, y, x: int64 [S], index of the map, of its image, and the pixel.
        anchor: int64 [S], index among the anchors of this pixel.
        positives: number of anchors with a regression target, which come first.
    """

    level: Tensor
    image: Tensor
    y: Tensor
    x: Tensor
    anchor: Tensor
    positives: int

    @classmethod
    def of(cls, sampled: Tensor, positives: int, sizes_hw: list[tuple[int, int]], anchors: int) -> AnchorIndex:
        """Convert positions in the list of all anchors, sorted by image, map, row, column, anchor of the pixel."""
        counts = torch.tensor([height * width * anchors for height, width in sizes_hw])
        ends = counts.cumsum(0)
        image, rest = sampled // ends[-1], sampled % ends[-1]
        level = torch.bucketize(rest, ends, right=True)
        pixel, anchor = (rest - (ends - counts)[level]) // anchors, rest % anchors
        width = torch.tensor([size[1] for size in sizes_hw])[level]
        return cls(level, image, pixel // width, pixel % width, anchor, positives)


class SampledRPN(RegionProposalNetwork):
    """torchvision's RPN; unchanged on other devices, while tracing, and with a head of several convolutions."""

    @classmethod
    def like(cls, rpn: RegionProposalNetwork) -> SampledRPN:
        """Return an RPN with the modules and settings of ``rpn``."""
        new = cls(
            rpn.anchor_generator,
            rpn.head,
            rpn.proposal_matcher.high_threshold,
            rpn.proposal_matcher.low_threshold,
            rpn.fg_bg_sampler.batch_size_per_image,
            rpn.fg_bg_sampler.positive_fraction,
            rpn._pre_nms_top_n,
            rpn._post_nms_top_n,
            rpn.nms_thresh,
            rpn.score_thresh,
        )
        return new.train(rpn.training)

    def forward(
        self, images: ImageList, features: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        if not self._is_supported(list(features.values())):
            outputs: tuple[list[Tensor], dict[str, Tensor]] = super().forward(images, features, targets)
            return outputs
        maps = list(channels_last(features).values())
        with torch.no_grad():
            hidden = [self.head.conv(level) for level in maps]
            objectness = [_by_anchor(self.head.cls_logits(level), 1)[:, :, 0] for level in hidden]
            deltas = [_by_anchor(self.head.bbox_pred(level), 4) for level in hidden]
            anchors = self.anchor_generator(images, maps)
            proposals = self._proposals(objectness, deltas, anchors[0], images.image_sizes)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("targets should not be None")
        return proposals, self._losses(maps, hidden, torch.cat(objectness, 1), torch.cat(deltas, 1), anchors, targets)

    def _is_supported(self, maps: list[Tensor]) -> bool:
        return (
            all(level.device.type == "cpu" for level in maps)
            and len(self.head.conv) == 1
            and not torch.jit.is_tracing()
            and not torch.compiler.is_compiling()
        )

    def _proposals(
        self,
        objectness: list[Tensor],
        deltas: list[Tensor],
        anchors: Tensor,
        sizes_hw: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Return the proposals [P, 4] of each image from objectness [N, M] and deltas [N, M, 4] of each level.

        Equal to torchvision's ``filter_proposals``, but boxes are decoded only for the anchors with the best scores.
        """
        scores, boxes, levels = [], [], []
        for level, (score, delta, anchor) in enumerate(
            zip(objectness, deltas, anchors.split([score.shape[1] for score in objectness]), strict=True)
        ):
            best = score.topk(min(self.pre_nms_top_n(), score.shape[1]), dim=1).indices
            scores.append(score.gather(1, best))
            best_deltas = delta.gather(1, best[:, :, None].expand(-1, -1, 4))
            decoded = self.box_coder.decode_single(best_deltas.reshape(-1, 4), anchor[best].reshape(-1, 4))
            boxes.append(decoded.view(*best.shape, 4))
            levels.append(torch.full((best.shape[1],), level))
        level_of = torch.cat(levels)
        by_image = zip(torch.cat(boxes, 1), torch.cat(scores, 1).sigmoid(), sizes_hw, strict=True)
        return [self._filter(box, score, level_of, size) for box, score, size in by_image]

    def _filter(self, boxes: Tensor, scores: Tensor, levels: Tensor, size_hw: tuple[int, int]) -> Tensor:
        boxes = box_ops.clip_boxes_to_image(boxes, size_hw)
        keep = box_ops.remove_small_boxes(boxes, self.min_size)
        keep = keep[scores[keep] >= self.score_thresh]
        boxes, scores, levels = boxes[keep], scores[keep], levels[keep]
        return boxes[box_ops.batched_nms(boxes, scores, levels, self.nms_thresh)[: self.post_nms_top_n()]]

    def _losses(
        self,
        maps: list[Tensor],
        hidden: list[Tensor],
        objectness: Tensor,
        deltas: Tensor,
        anchors: list[Tensor],
        targets: list[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Compute torchvision's losses for the sampled anchors, which are sampled with the same random numbers."""
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        positive, negative = (torch.cat(mask).nonzero()[:, 0] for mask in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        sizes = [(level.shape[2], level.shape[3]) for level in maps]
        anchor_index = AnchorIndex.of(sampled, len(positive), sizes, self.head.cls_logits.out_channels)
        convolution = self.head.conv[0][0]
        layers = (convolution, self.head.cls_logits, self.head.bbox_pred)
        weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        logits, boxes = _Sampled.apply(
            objectness.flatten()[sampled], deltas.flatten(0, 1)[positive], anchor_index, hidden, *weights, *maps
        )
        regression_targets = self.box_coder.encode_single(torch.cat(matched)[positive], torch.cat(anchors)[positive])
        box_loss = functional.smooth_l1_loss(boxes, regression_targets, beta=BETA, reduction="sum") / len(sampled)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.cat(labels)[sampled])
        return {"loss_objectness": loss, "loss_rpn_box_reg": box_loss}


class _Sampled(torch.autograd.Function):
    """Return the head's outputs for the sampled anchors, computed before; backpropagate to its layers and the maps."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, boxes: Tensor, anchor_index: AnchorIndex, hidden: list[Tensor], *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*hidden, *tensors)
        ctx.anchor_index, ctx.levels = anchor_index, len(hidden)
        return logits.clone(), boxes.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor, grad_boxes: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weights = ctx.saved_tensors[: ctx.levels], ctx.saved_tensors[ctx.levels : ctx.levels + 6]
        maps = ctx.saved_tensors[ctx.levels + 6 :]
        needed = ctx.needs_input_grad[4 + len(weights) :]
        with torch.autocast("cpu", enabled=False):
            grad_weights, grad_maps = _backward(
                ctx.anchor_index, grad_logits, grad_boxes, hidden, weights, maps, needed
            )
        return None, None, None, None, *grad_weights, *grad_maps


def _backward(
    index: AnchorIndex,
    grad_logits: Tensor,
    grad_boxes: Tensor,
    hidden: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
    maps: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Compute gradients of the six weights (convolution, logits, boxes; each with its bias) and of the needed maps.

    Each sampled anchor is a row: first backward through both 1 x 1 layers and the ReLU, then the 3 x 3 convolution.
    """
    kernel, _, class_weight, _, box_weight, _ = weights
    dtype, anchors, count = kernel.dtype, len(class_weight), len(index.anchor)
    grad_outputs = torch.zeros(count, 5 * anchors, dtype=dtype)
    row = torch.arange(count)
    grad_outputs[row, index.anchor] = grad_logits.to(dtype)
    first = row[: index.positives, None]
    grad_outputs[first, anchors + 4 * index.anchor[: index.positives, None] + torch.arange(4)] = grad_boxes.to(dtype)
    output_weights = torch.cat([class_weight.flatten(1), box_weight.flatten(1)])
    side = kernel.shape[2]
    shifts = torch.arange(side) - side // 2
    flat = kernel.permute(0, 2, 3, 1).flatten(1)  # [C, side * side * C]
    grad_maps: list[Tensor | None] = []
    activations, patches, order = [], [], []
    for level, (feature_map, inner) in enumerate(zip(maps, hidden, strict=True)):
        on_level = (index.level == level).nonzero()[:, 0]
        order.append(on_level)
        image, y, x = index.image[on_level], index.y[on_level], index.x[on_level]
        activations.append(inner.permute(0, 2, 3, 1)[image, y, x].to(dtype))
        height, width = feature_map.shape[2:]
        rows, columns = torch.broadcast_tensors(y[:, None, None] + shifts[:, None], x[:, None, None] + shifts)
        inside = ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))[..., None]
        pixel = (image[:, None, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
        patches.append((feature_map.permute(0, 2, 3, 1).flatten(0, 2)[pixel].to(dtype) * inside).flatten(1))
        if needed[level]:
            grad_level = (grad_outputs[on_level] @ output_weights) * (activations[-1] > 0)
            grad_patches = (grad_level @ flat).view(*inside.shape[:3], feature_map.shape[1]) * inside
            grad_map = sum_at(pixel.flatten(), grad_patches.flatten(0, 2), feature_map.shape)
            grad_maps.append(grad_map.to(feature_map.dtype))
        else:
            grad_maps.append(None)
    grad_outputs, activation = grad_outputs[torch.cat(order)], torch.cat(activations)
    grad_hidden = (grad_outputs @ output_weights) * (activation > 0)
    grad_weights, grad_biases = grad_outputs.t() @ activation, grad_outputs.sum(0)
    grad_kernel = (
        (grad_hidden.t() @ torch.cat(patches)).view(len(kernel), side, side, kernel.shape[1]).permute(0, 3, 1, 2)
    )
    gradients = [
        *(grad_kernel.contiguous(), grad_hidden.sum(0)),
        *(grad_weights[:anchors].view_as(class_weight), grad_biases[:anchors]),
        *(grad_weights[anchors:].view_as(box_weight), grad_biases[anchors:]),
    ]
    return gradients, grad_maps


def sum_at(pixel: Tensor, grad_patches: Tensor, shape: torch.Size) -> Tensor:
    """Return a map [B, C, H, W] with channels last in memory: at each pixel the sum of its rows of ``grad_patches``.

    Rows are added in their order. ``index_put_`` adds them in the order in which its threads run, so its bits depend on
    the load of the machine.

    Args:
        pixel: int64 [K], positions in the list of all B * H * W pixels.
        grad_patches: [K, C].
    """
    batch, channels, height, width = shape
    total = grad_patches.new_zeros(batch * height * width, channels)
    total.scatter_add_(0, pixel[:, None].expand_as(grad_patches), grad_patches)
    return total.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _by_anchor(outputs: Tensor, values: int) -> Tensor:
    """Reorder [N, A * values, H, W] to [N, H * W * A, values], in torchvision's order of anchors."""
    return outputs.permute(0, 2, 3, 1).reshape(len(outputs), -1, values)
