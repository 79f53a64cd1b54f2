"""The RPN with a backward for the sampled anchors only; proposals and losses are torchvision's own, bit for bit.

Of tens of thousands of anchors a few hundred are in the loss, yet torchvision goes back through the convolutions at
every pixel of every map: on a CPU an eighth of a training step, and a third of one whose backbone is frozen. Here the
gradient is made where it is not zero. Boxes are decoded for the anchors that go into NMS, and targets are made for
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
"""Of the smooth L1 loss, as in torchvision's RPN."""


@dataclass(frozen=True)
class AnchorIndex:
    """Where the sampled anchors stand, sorted as they are in the loss.

    Attributes:
        level, image, y, x: int64 [S], the map, its image and the pixel.
        anchor: int64 [S], which of the anchors of this pixel.
        positives: the first so many have a box to learn.
    """

    level: Tensor
    image: Tensor
    y: Tensor
    x: Tensor
    anchor: Tensor
    positives: int

    @classmethod
    def of(cls, sampled: Tensor, positives: int, sizes_hw: list[tuple[int, int]], anchors: int) -> AnchorIndex:
        """From positions in the list of all anchors: by image, map, row, column, anchor of the pixel."""
        counts = torch.tensor([height * width * anchors for height, width in sizes_hw])
        ends = counts.cumsum(0)
        image, rest = sampled // ends[-1], sampled % ends[-1]
        level = torch.bucketize(rest, ends, right=True)
        pixel, anchor = (rest - (ends - counts)[level]) // anchors, rest % anchors
        width = torch.tensor([size[1] for size in sizes_hw])[level]
        return cls(level, image, pixel // width, pixel % width, anchor, positives)


class SampledRPN(RegionProposalNetwork):
    """torchvision's RPN; on other devices, in a trace, and with a head of several convolutions it is unchanged."""

    @classmethod
    def like(cls, rpn: RegionProposalNetwork) -> SampledRPN:
        """An RPN of the modules and settings of ``rpn``."""
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
        if not self._samples(list(features.values())):
            found: tuple[list[Tensor], dict[str, Tensor]] = super().forward(images, features, targets)
            return found
        maps = list(channels_last(features).values())
        with torch.no_grad():
            hidden = [self.head.conv(one) for one in maps]
            objectness = [_by_anchor(self.head.cls_logits(one), 1)[:, :, 0] for one in hidden]
            deltas = [_by_anchor(self.head.bbox_pred(one), 4) for one in hidden]
            anchors = self.anchor_generator(images, maps)
            proposals = self._proposals(objectness, deltas, anchors[0], images.image_sizes)
        if not self.training:
            return proposals, {}
        if targets is None:
            raise ValueError("targets should not be None")
        return proposals, self._losses(maps, hidden, torch.cat(objectness, 1), torch.cat(deltas, 1), anchors, targets)

    def _samples(self, maps: list[Tensor]) -> bool:
        return (
            all(one.device.type == "cpu" for one in maps)
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
        """Proposals [P, 4] of each image from objectness [N, M] and deltas [N, M, 4] of each level.

        What torchvision's ``filter_proposals`` does, but boxes are made only of anchors that are among the best.
        """
        scores, boxes, levels = [], [], []
        for level, (score, delta, anchor) in enumerate(
            zip(objectness, deltas, anchors.split([one.shape[1] for one in objectness]), strict=True)
        ):
            best = score.topk(min(self.pre_nms_top_n(), score.shape[1]), dim=1).indices
            scores.append(score.gather(1, best))
            chosen = delta.gather(1, best[:, :, None].expand(-1, -1, 4))
            decoded = self.box_coder.decode_single(chosen.reshape(-1, 4), anchor[best].reshape(-1, 4))
            boxes.append(decoded.view(*best.shape, 4))
            levels.append(torch.full((best.shape[1],), level))
        level_of = torch.cat(levels)
        every = zip(torch.cat(boxes, 1), torch.cat(scores, 1).sigmoid(), sizes_hw, strict=True)
        return [self._best(box, score, level_of, size) for box, score, size in every]

    def _best(self, boxes: Tensor, scores: Tensor, levels: Tensor, size_hw: tuple[int, int]) -> Tensor:
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
        """torchvision's losses of the sampled anchors, which it draws from the same random numbers."""
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        positive, negative = (torch.cat(chosen).nonzero()[:, 0] for chosen in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        sizes = [(one.shape[2], one.shape[3]) for one in maps]
        places = AnchorIndex.of(sampled, len(positive), sizes, self.head.cls_logits.out_channels)
        convolution = self.head.conv[0][0]
        layers = (convolution, self.head.cls_logits, self.head.bbox_pred)
        weights = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        logits, boxes = _Sampled.apply(
            objectness.flatten()[sampled], deltas.flatten(0, 1)[positive], places, hidden, *weights, *maps
        )
        regression_targets = self.box_coder.encode_single(torch.cat(matched)[positive], torch.cat(anchors)[positive])
        box_loss = functional.smooth_l1_loss(boxes, regression_targets, beta=BETA, reduction="sum") / len(sampled)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.cat(labels)[sampled])
        return {"loss_objectness": loss, "loss_rpn_box_reg": box_loss}


class _Sampled(torch.autograd.Function):
    """What the head gives for the sampled anchors, known already, and the gradient of its layers and of the maps."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, boxes: Tensor, places: AnchorIndex, hidden: list[Tensor], *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*hidden, *tensors)
        ctx.places, ctx.levels = places, len(hidden)
        return logits.clone(), boxes.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor, grad_boxes: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weights = ctx.saved_tensors[: ctx.levels], ctx.saved_tensors[ctx.levels : ctx.levels + 6]
        maps = ctx.saved_tensors[ctx.levels + 6 :]
        wanted = ctx.needs_input_grad[4 + len(weights) :]
        with torch.autocast("cpu", enabled=False):
            of_weights, of_maps = _backward(ctx.places, grad_logits, grad_boxes, hidden, weights, maps, wanted)
        return None, None, None, None, *of_weights, *of_maps


def _backward(
    places: AnchorIndex,
    grad_logits: Tensor,
    grad_boxes: Tensor,
    hidden: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
    maps: tuple[Tensor, ...],
    wanted: tuple[bool, ...],
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Gradients of the six weights (convolution, logits, boxes; each with its bias) and of the maps.

    Each sampled anchor is a row: first back through both 1 x 1 layers and the ReLU, then through the 3 x 3 convolution.
    """
    kernel, _, of_class, _, of_box, _ = weights
    work, anchors, count = kernel.dtype, len(of_class), len(places.anchor)
    outer = torch.zeros(count, 5 * anchors, dtype=work)
    row = torch.arange(count)
    outer[row, places.anchor] = grad_logits.to(work)
    first = row[: places.positives, None]
    outer[first, anchors + 4 * places.anchor[: places.positives, None] + torch.arange(4)] = grad_boxes.to(work)
    both = torch.cat([of_class.flatten(1), of_box.flatten(1)])
    side = kernel.shape[2]
    shifts = torch.arange(side) - side // 2
    flat = kernel.permute(0, 2, 3, 1).flatten(1)  # [C, side * side * C]
    of_maps: list[Tensor | None] = []
    seen, patches, order = [], [], []
    for level, (one, inner) in enumerate(zip(maps, hidden, strict=True)):
        here = (places.level == level).nonzero()[:, 0]
        order.append(here)
        image, y, x = places.image[here], places.y[here], places.x[here]
        seen.append(inner.permute(0, 2, 3, 1)[image, y, x].to(work))
        height, width = one.shape[2:]
        rows, columns = torch.broadcast_tensors(y[:, None, None] + shifts[:, None], x[:, None, None] + shifts)
        inside = ((rows >= 0) & (rows < height) & (columns >= 0) & (columns < width))[..., None]
        pixel = (image[:, None, None] * height + rows.clamp(0, height - 1)) * width + columns.clamp(0, width - 1)
        patches.append((one.permute(0, 2, 3, 1).flatten(0, 2)[pixel].to(work) * inside).flatten(1))
        if wanted[level]:
            back = (outer[here] @ both) * (seen[-1] > 0)
            grad_patches = (back @ flat).view(*inside.shape[:3], one.shape[1]) * inside
            of_maps.append(sum_at(pixel.flatten(), grad_patches.flatten(0, 2), one.shape).to(one.dtype))
        else:
            of_maps.append(None)
    outer, activation = outer[torch.cat(order)], torch.cat(seen)
    middle = (outer @ both) * (activation > 0)
    of_both, of_biases = outer.t() @ activation, outer.sum(0)
    of_kernel = (middle.t() @ torch.cat(patches)).view(len(kernel), side, side, kernel.shape[1]).permute(0, 3, 1, 2)
    found = [
        *(of_kernel.contiguous(), middle.sum(0)),
        *(of_both[:anchors].view_as(of_class), of_biases[:anchors]),
        *(of_both[anchors:].view_as(of_box), of_biases[anchors:]),
    ]
    return found, of_maps


def sum_at(pixel: Tensor, grad_patches: Tensor, shape: torch.Size) -> Tensor:
    """A map [B, C, H, W] with channels last in memory: at each pixel the sum of the rows that it is grad_patches.

    Rows are added in their order. ``index_put_`` adds them as its threads come along, so that bits depend on what else
    the machine does.

    Args:
        pixel: int64 [K], positions in the list of all B * H * W pixels.
        grad_patches: [K, C].
    """
    batch, channels, height, width = shape
    found = grad_patches.new_zeros(batch * height * width, channels)
    found.scatter_add_(0, pixel[:, None].expand_as(grad_patches), grad_patches)
    return found.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _by_anchor(found: Tensor, numbers: int) -> Tensor:
    """[N, A * numbers, H, W] -> [N, H * W * A, numbers], as torchvision sorts anchors."""
    return found.permute(0, 2, 3, 1).reshape(len(found), -1, numbers)
