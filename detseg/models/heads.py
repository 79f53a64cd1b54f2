"""RoI heads that compute only what their training losses need; the losses equal torchvision's up to rounding."""

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
    """torchvision's RoI heads; unchanged in eval mode, on devices other than a CPU and while tracing.

    In training the mask logits of each box are computed for its class only, and compared with :func:`mask_targets`.

    Attributes:
        mask_rois_per_image: as in ModelDescription, on any device; None for torchvision's behaviour.
    """

    mask_rois_per_image: int | None = None

    @classmethod
    def like(cls, heads: RoIHeads) -> TrainingRoIHeads:
        """Return new heads with the modules and settings of ``heads``."""
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
        unchanged = self.mask_rois_per_image is None and any(boxes.device.type != "cpu" for boxes in proposals)
        if not self.training or targets is None or unchanged:
            outputs: Any = super().forward(features, proposals, image_shapes, targets)
            return outputs
        features = channels_last(features)
        proposals, matched, labels, regression_targets = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        logits, box_deltas = self.box_predictor(self.box_head(pooled))
        losses: Losses = {}
        losses["loss_classifier"], losses["loss_box_reg"] = fastrcnn_loss(
            logits, box_deltas, labels, regression_targets
        )
        positive = [self._select_positive(image_labels) for image_labels in labels]
        positive_boxes = [boxes[index] for boxes, index in zip(proposals, positive, strict=True)]
        matched = [instances[index] for instances, index in zip(matched, positive, strict=True)]
        if self.has_mask():
            pooled = self.mask_head(self.mask_roi_pool(features, positive_boxes, image_shapes))
            labels = torch.cat([image_labels[index] for image_labels, index in zip(labels, positive, strict=True)])
            masks = [target["masks"] for target in targets]
            losses["loss_mask"] = self._mask_loss(pooled, labels, positive_boxes, matched, masks)
        if self.has_keypoint():
            pooled = self.keypoint_head(self.keypoint_roi_pool(features, positive_boxes, image_shapes))
            heatmaps = self.keypoint_predictor(pooled)
            keypoints = [target["keypoints"] for target in targets]
            losses["loss_keypoint"] = keypointrcnn_loss(heatmaps.contiguous(), positive_boxes, keypoints, matched)
        return [], losses

    def _select_positive(self, labels: Tensor) -> Tensor:
        """Return the indices int64 [P] of boxes that match an object, at most ``mask_rois_per_image`` (random)."""
        positive = (labels > 0).nonzero()[:, 0]
        limit = self.mask_rois_per_image
        if limit is None or len(positive) <= limit:
            return positive
        return positive[torch.randperm(len(positive), device=positive.device)[:limit].sort().values]

    def _mask_loss(
        self, pooled: Tensor, labels: Tensor, boxes: list[Tensor], matched: list[Tensor], masks: list[Tensor]
    ) -> Tensor:
        logits = own_class_logits(self.mask_predictor, pooled, labels)
        if not len(labels):
            return logits.sum() * 0
        mask_target_list = [mask_targets(*image, logits.shape[-1]) for image in zip(masks, boxes, matched, strict=True)]
        return functional.binary_cross_entropy_with_logits(logits, torch.cat(mask_target_list))


def own_class_logits(predictor: Any, pooled: Tensor, labels: Tensor) -> Tensor:
    """Compute only the map of each box's class in ``predictor(pooled)``: [K, C, h, w] and labels [K] -> [K, 2 h, 2 w].

    The transposed convolution's patches of 2 x 2 pixels do not overlap, so it is one matrix product; the pixels are
    rearranged at the end, when only one channel is left.
    """
    upsample, last = predictor.conv5_mask, predictor.mask_fcn_logits
    count, channels, height, width = pooled.shape
    weight = upsample.weight.permute(2, 3, 1, 0).reshape(-1, channels)
    pixels = functional.linear(pooled.permute(0, 2, 3, 1), weight, upsample.bias.repeat(4)).relu()
    pixels = pixels.reshape(count, height * width * 4, upsample.out_channels)
    logits = torch.bmm(pixels, last.weight.flatten(1)[labels][:, :, None])[:, :, 0] + last.bias[labels][:, None]
    return logits.view(count, height, width, 2, 2).permute(0, 1, 3, 2, 4).reshape(count, 2 * height, 2 * width)
