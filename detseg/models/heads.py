"""The RoI heads in training without what their losses do not need; the losses are torchvision's up to rounding."""

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

from detseg.models.ops.mask_targets import mask_targets
from detseg.models.ops.memory_format import channels_last

__all__ = ["TrainingRoIHeads"]

Losses = dict[str, Tensor]


class TrainingRoIHeads(RoIHeads):
    """torchvision's RoI heads; in eval mode, on other devices than a CPU and in a trace they are unchanged.

    In training the mask of each box is computed for its own class only, and compared with :func:`mask_targets`.

    Attributes:
        mask_rois_per_image: as in ModelDescription, on any device; None for torchvision's way.
    """

    mask_rois_per_image: int | None = None

    @classmethod
    def like(cls, heads: RoIHeads) -> TrainingRoIHeads:
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
        return new.train(heads.training)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], Losses]:
        plain = self.mask_rois_per_image is None and any(one.device.type != "cpu" for one in proposals)
        if not self.training or targets is None or plain:
            found: Any = super().forward(features, proposals, image_shapes, targets)
            return found
        features = channels_last(features)
        proposals, matched, labels, regression_targets = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        logits, boxes = self.box_predictor(self.box_head(pooled))
        losses: Losses = {}
        losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(logits, boxes, labels, regression_targets)
        positive = [self._positive(one) for one in labels]
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

    def _positive(self, labels: Tensor) -> Tensor:
        """int64 [P]: which boxes of an image match an object; some of them, at random, if only so many masks count."""
        positive = (labels > 0).nonzero()[:, 0]
        most = self.mask_rois_per_image
        if most is None or len(positive) <= most:
            return positive
        return positive[torch.randperm(len(positive), device=positive.device)[:most].sort().values]

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
