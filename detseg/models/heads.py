"""The RoI heads in training without what their losses do not need; and more than one box pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    keypointrcnn_loss,
)
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from detseg.models.channels import channels_last
from detseg.models.loss_mode import eval_mode
from detseg.models.mask_targets import mask_targets

__all__ = ["LeanRoIHeads"]

Losses = dict[str, Tensor]


REFINED_IN_TRAINING = 100
"""Proposals of an image, the best, that are refined for another pass in training."""


class LeanRoIHeads(RoIHeads):
    """torchvision's RoI heads; in eval mode and on other devices than a CPU they are unchanged with one box pass.

    In training the mask of each box is computed for its own class only, and compared with :func:`mask_targets`.

    With more passes proposals are replaced by what the box head makes of them, before it judges them: iterative box
    regression (Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN model",
    2015). In training refined boxes join the proposals that RoIs are drawn from, so that the head has met such boxes,
    as in Cascade R-CNN (Cai and Vasconcelos, 2018), but it is one head with one set of weights.

    Attributes:
        box_passes: how often a box goes through the box head.
    """

    box_passes: int = 1

    @classmethod
    def like(cls, heads: RoIHeads, box_passes: int = 1) -> LeanRoIHeads:
        """Heads of the modules and settings of ``heads``."""
        matcher, sampler = heads.proposal_matcher, heads.fg_bg_sampler
        new = cls(
            heads.box_roi_pool,
            heads.box_head,
            heads.box_predictor,
            matcher.high_threshold,
            matcher.low_threshold,
            sampler.batch_size_per_image,
            sampler.positive_fraction,
            heads.box_coder.weights,
            heads.score_thresh,
            heads.nms_thresh,
            heads.detections_per_img,
        )
        for name in ("mask", "keypoint"):
            for part in ("roi_pool", "head", "predictor"):
                setattr(new, f"{name}_{part}", getattr(heads, f"{name}_{part}"))
        new.box_passes = box_passes
        return new.train(heads.training)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], Losses]:
        lean = self.training and targets is not None and all(one.device.type == "cpu" for one in proposals)
        features = channels_last(features) if lean else features
        if self.box_passes > 1:
            proposals = self._passed(features, proposals, image_shapes)
        if not lean or targets is None:
            found: Any = super().forward(features, proposals, image_shapes, targets)
            return found
        proposals, matched, labels, aims = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        logits, boxes = self.box_predictor(self.box_head(pooled))
        losses: Losses = {}
        losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(logits, boxes, labels, aims)
        positive = [(one > 0).nonzero()[:, 0] for one in labels]
        chosen = [one[here] for one, here in zip(proposals, positive, strict=True)]
        matched = [one[here] for one, here in zip(matched, positive, strict=True)]
        if self.has_mask():
            pooled = self.mask_head(self.mask_roi_pool(features, chosen, image_shapes))
            labels = torch.cat([one[here] for one, here in zip(labels, positive, strict=True)])
            losses["loss_mask"] = self._mask_loss(pooled, labels, chosen, matched, [one["masks"] for one in targets])
        if self.has_keypoint():
            found = self.keypoint_predictor(self.keypoint_head(self.keypoint_roi_pool(features, chosen, image_shapes)))
            points = [one["keypoints"] for one in targets]
            losses["loss_keypoint"] = keypointrcnn_loss(found.contiguous(), chosen, points, matched)
        return [], losses

    @torch.no_grad()
    def _passed(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """What the last pass is given: in eval mode refined boxes, in training those and the proposals [P, 4]."""
        if not self.training:
            for _ in range(self.box_passes - 1):
                proposals = self._refined(features, proposals, image_shapes)
            return proposals
        refined = [one[:REFINED_IN_TRAINING] for one in proposals]
        with eval_mode(self.box_head):  # norm layers are not to count these boxes
            for _ in range(self.box_passes - 1):
                refined = self._refined(features, refined, image_shapes)
                proposals = [torch.cat(pair) for pair in zip(proposals, refined, strict=True)]
        return proposals

    def _refined(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Each box [P, 4] moved as its most likely class would; boxes that leave the image are dropped."""
        if not any(len(one) for one in boxes):
            return boxes
        pooled = self.box_roi_pool(features, boxes, image_shapes)
        logits, deltas = self.box_predictor(self.box_head(pooled))
        label = logits[:, 1:].argmax(1) + 1
        moved = self.box_coder.decode(deltas, boxes)[torch.arange(len(label), device=label.device), label]
        found = []
        for one, size_hw in zip(moved.split([len(one) for one in boxes]), image_shapes, strict=True):
            one = clip_boxes_to_image(one, size_hw)
            found.append(one[remove_small_boxes(one, 1.0)])
        return found

    def _mask_loss(
        self, pooled: Tensor, labels: Tensor, boxes: list[Tensor], matched: list[Tensor], masks: list[Tensor]
    ) -> Tensor:
        logits = own_class_logits(self.mask_predictor, pooled, labels)
        if not len(labels):
            return logits.sum() * 0
        wanted = [mask_targets(*image, logits.shape[-1]) for image in zip(masks, boxes, matched, strict=True)]
        return functional.binary_cross_entropy_with_logits(logits, torch.cat(wanted))


def own_class_logits(predictor: Any, pooled: Tensor, labels: Tensor) -> Tensor:
    """Of ``predictor(pooled)`` the map of each box's own class: [K, C, h, w] and labels [K] -> [K, 2 h, 2 w].

    The transposed convolution's patches of 2 x 2 pixels do not overlap, so it is one product of matrices; the pixels
    are put in their places when one channel of them is left.
    """
    spread, last = predictor.conv5_mask, predictor.mask_fcn_logits
    count, channels, height, width = pooled.shape
    weight = spread.weight.permute(2, 3, 1, 0).reshape(-1, channels)
    pixels = functional.linear(pooled.permute(0, 2, 3, 1), weight, spread.bias.repeat(4)).relu()
    pixels = pixels.reshape(count, height * width * 4, spread.out_channels)
    logits = torch.bmm(pixels, last.weight.flatten(1)[labels][:, :, None])[:, :, 0] + last.bias[labels][:, None]
    return logits.view(count, height, width, 2, 2).permute(0, 1, 3, 2, 4).reshape(count, 2 * height, 2 * width)
