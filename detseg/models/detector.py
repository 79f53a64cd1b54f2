"""Faster, Mask and Keypoint R-CNN: torchvision's modules, fed with images that are already of the network's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detseg.models.bodies import Body
from detseg.models.description import ModelDescription
from detseg.models.door import Target, check_images, check_targets
from detseg.models.padding import (
    FeatureMaps,
    SizeHW,
    size_of,
    stack_maps,
    stack_padded,
)
from detseg.models.parts import PartedModel
from detseg.models.raw import frame_of, padded_alone, raw_prediction
from detseg.structures import RawPrediction

Losses = dict[str, Tensor]


class Detector(PartedModel):
    """A two-stage detector. Its state dict has the keys of torchvision's detector of the same name.

    Called in training mode it gives losses: "loss_classifier", "loss_box_reg", "loss_objectness" and
    "loss_rpn_box_reg" (not with a frozen RPN), with a mask head "loss_mask", with a keypoint head "loss_keypoint"; the
    same keys for every batch, also one without any instance or labelled keypoint. Called in eval mode it gives one
    :class:`RawPrediction` per image.

    The way of an image: ``body_maps -> neck_maps -> frozen_proposals -> losses_from_*``. What is frozen is computed
    image by image, so that it depends on the image alone and can be computed once and kept; the first trainable part
    gets the batch. With everything trainable, or only the stem frozen, the images are padded to the largest of the
    batch as torchvision does.

    Random numbers: training draws anchors and RoIs from torch's global generator; the caller seeds it.

    Attributes:
        backbone, rpn, roi_heads: torchvision's modules.
        description: what the model is rebuilt from.
    """

    # Any: torchvision's modules come without types
    backbone: Any
    rpn: Any
    roi_heads: Any

    def __init__(self, network: Any, body: Body, description: ModelDescription) -> None:
        """``network``: torchvision's ``FasterRCNN``, ``MaskRCNN`` or ``KeypointRCNN``; its ``transform`` is left."""
        super().__init__(description)
        self.backbone = network.backbone
        self.rpn = network.rpn
        self.roi_heads = network.roi_heads
        self._stages = body.stages
        self._add_normalisation()

    @property
    def has_masks(self) -> bool:
        return bool(self.roi_heads.has_mask())

    @property
    def num_keypoints(self) -> int:
        """P; 0 for a model that finds no keypoints."""
        return 0 if self.description.keypoints is None else len(self.description.keypoints.names)

    def parts(self) -> dict[str, tuple[str, ...]]:
        stages = self.body_stages()
        parts = {
            "stem": sum(stages[:2], ()),
            "body": sum(stages[2:], ()),
            "neck": ("backbone.fpn",),
            "rpn": ("rpn",),
            "box head": ("roi_heads.box_head", "roi_heads.box_predictor"),
        }
        if self.has_masks:
            parts["mask head"] = ("roi_heads.mask_head", "roi_heads.mask_predictor")
        if self.num_keypoints:
            parts["keypoint head"] = ("roi_heads.keypoint_head", "roi_heads.keypoint_predictor")
        return parts

    def body_stages(self) -> tuple[tuple[str, ...], ...]:
        present = set(dict(self.backbone.body.named_modules()))
        stages = [tuple(f"backbone.body.{name}" for name in stage if name in present) for stage in self._stages]
        return tuple(stage for stage in stages if stage)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> Losses | list[RawPrediction]:
        """Losses in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], already resized; any sizes from 1 x 1 pixel.
            targets: needed in training mode: boxes float32 [N, 4], labels int64 [N] in 1..K, masks uint8 [N, H, W] for
                a mask head, keypoints float32 [N, P, 3] (x, y, visibility; 0 is not labelled and not learned from) for
                a keypoint head; N = 0 is a negative image.

        Raises:
            DataError: an image or target that breaks this contract, by its image_id.
        """
        check_images(images, targets)
        if not self.training:
            return self._predict(images)
        check_targets(images, targets, len(self.description.class_map), self.has_masks, keypoints=self.num_keypoints)
        assert targets is not None
        self.keep_frozen()
        sizes_hw = [size_of(image) for image in images]
        if self.is_frozen("stem", "body"):
            return self.losses_from_body([self.body_maps(image) for image in images], sizes_hw, targets)
        self.check_norms_can_learn(images)
        maps = self.backbone(stack_padded([self.normalise(image) for image in images]))
        return self._losses(maps, self._proposals_and_losses(maps, sizes_hw, targets), sizes_hw, targets)

    # What frozen parts make of one image. None of it depends on other images.

    @torch.no_grad()
    def body_maps(self, image: Tensor) -> FeatureMaps:
        """The body's maps [1, C, h, w] of one image [3, H, W], padded alone."""
        return dict(self.backbone.body(stack_padded([self.normalise(image)])))

    @torch.no_grad()
    def neck_maps(self, body_maps: FeatureMaps) -> FeatureMaps:
        """The FPN's maps [1, 256, h, w] from the body's maps of one image."""
        return dict(self.backbone.fpn(body_maps))

    @torch.no_grad()
    def frozen_proposals(self, neck_maps: FeatureMaps, size_hw: SizeHW) -> Tensor:
        """The RPN's proposals float32 [P, 4] xyxy for one image, by eval-mode settings; for a frozen RPN."""
        return self.rpn(frame_of([size_hw]), neck_maps, None)[0][0]

    # The losses of a batch, from whatever is already known of its images.

    def losses_from_body(
        self, body_maps: Sequence[FeatureMaps], sizes_hw: Sequence[SizeHW], targets: Sequence[Target]
    ) -> Losses:
        """Losses from the frozen body's maps of each image (:meth:`body_maps`)."""
        if self.is_frozen("neck"):
            return self.losses_from_neck([self.neck_maps(maps) for maps in body_maps], sizes_hw, targets)
        maps = dict(self.backbone.fpn(stack_maps(body_maps)))
        return self._losses(maps, self._proposals_and_losses(maps, sizes_hw, targets), sizes_hw, targets)

    def losses_from_neck(
        self,
        neck_maps: Sequence[FeatureMaps],
        sizes_hw: Sequence[SizeHW],
        targets: Sequence[Target],
        proposals: list[Tensor] | None = None,
    ) -> Losses:
        """Losses from the frozen FPN's maps of each image (:meth:`neck_maps`).

        ``proposals``: of each image (:meth:`frozen_proposals`), for a frozen RPN; computed here if not given.
        """
        maps = stack_maps(neck_maps)
        if not self.is_frozen("rpn"):
            return self._losses(maps, self._proposals_and_losses(maps, sizes_hw, targets), sizes_hw, targets)
        if proposals is None:
            proposals = [self.frozen_proposals(*image) for image in zip(neck_maps, sizes_hw, strict=True)]
        return self._losses(maps, (proposals, {}), sizes_hw, targets)

    def _proposals_and_losses(
        self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW], targets: Sequence[Target]
    ) -> tuple[list[Tensor], Losses]:
        return self.rpn(frame_of(sizes_hw), maps, list(targets))

    def _losses(
        self,
        maps: FeatureMaps,
        proposals_and_losses: tuple[list[Tensor], Losses],
        sizes_hw: Sequence[SizeHW],
        targets: Sequence[Target],
    ) -> Losses:
        proposals, rpn_losses = proposals_and_losses
        proposals = [_at_least_one(*image) for image in zip(proposals, sizes_hw, targets, strict=True)]
        _, head_losses = self.roi_heads(maps, proposals, list(sizes_hw), list(targets))
        return {**head_losses, **rpn_losses}

    # Predictions.

    @torch.no_grad()
    def _predict(self, images: Sequence[Tensor]) -> list[RawPrediction]:
        return padded_alone(images, self._predict_equal)

    def _predict_equal(self, images: Sequence[Tensor]) -> list[RawPrediction]:
        maps = self.backbone(stack_padded([self.normalise(image) for image in images]))
        return self.predictions_from_neck(maps, [size_of(image) for image in images])

    def predictions_from_neck(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW]) -> list[RawPrediction]:
        """Predictions from FPN maps [N, 256, h, w] of N images of equal padded size."""
        proposals, _ = self.rpn(frame_of(sizes_hw), maps, None)
        detections, _ = self.roi_heads(maps, proposals, list(sizes_hw), None)
        return [raw_prediction(detection) for detection in detections]


def _at_least_one(proposals: Tensor, size_hw: SizeHW, target: Target) -> Tensor:
    """The whole image as the one proposal of a negative image that has none: a mean over no RoI would be NaN."""
    if len(proposals) or len(target["boxes"]):
        return proposals
    return proposals.new_tensor([[0, 0, size_hw[1], size_hw[0]]])
