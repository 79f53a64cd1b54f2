"""Faster, Mask and Keypoint R-CNN: torchvision's modules, fed with images that are already of the network's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from detseg.models.backbones import BackboneSpec
from detseg.models.description import ModelDescription
from detseg.models.features import FrozenFeatures, Image, as_float, split_inputs
from detseg.models.fpn_detector import FpnDetector
from detseg.models.input_checks import Target, check_images, check_targets
from detseg.models.outputs import frame_of, raw_prediction
from detseg.models.padding import FeatureMaps, SizeHW, size_of
from detseg.structures import RawPrediction

Losses = dict[str, Tensor]


class Detector(FpnDetector):
    """A two-stage detector. Its state dict has the keys of torchvision's detector of the same name.

    Called in training mode it gives losses: "loss_classifier", "loss_box_reg", "loss_objectness" and
    "loss_rpn_box_reg" (not with a frozen RPN), with a mask head "loss_mask", with a keypoint head "loss_keypoint"; the
    same keys for every batch, also one without any instance or labelled keypoint. Called in eval mode it gives one
    :class:`RawPrediction` per image.

    What is frozen is computed image by image, so that it depends on the image alone and can be computed once and kept
    (:meth:`frozen_features`); the first trainable part gets the batch. With everything trainable, or only the stem
    frozen, the images are padded to the largest of the batch as torchvision does.

    Random numbers: training draws anchors and RoIs from torch's global generator; the caller seeds it.

    Attributes:
        backbone, rpn, roi_heads: torchvision's modules.
        description: what the model is rebuilt from.
    """

    # Any: torchvision's modules come without types
    rpn: Any
    roi_heads: Any

    def __init__(self, network: Any, spec: BackboneSpec, description: ModelDescription) -> None:
        """``network``: torchvision's ``FasterRCNN``, ``MaskRCNN`` or ``KeypointRCNN``; its ``transform`` is left."""
        super().__init__(description)
        self.backbone = network.backbone
        self.rpn = network.rpn
        self.roi_heads = network.roi_heads
        present = set(dict(self.backbone.body.named_modules()))
        stages = [tuple(f"backbone.body.{name}" for name in stage if name in present) for stage in spec.stages]
        self._stages = tuple(stage for stage in stages if stage)
        self._add_normalisation()

    @property
    def has_masks(self) -> bool:
        return bool(self.roi_heads.has_mask())

    @property
    def num_keypoints(self) -> int:
        """P; 0 for a model that finds no keypoints."""
        return 0 if self.description.keypoints is None else len(self.description.keypoints.names)

    def parts(self) -> dict[str, tuple[str, ...]]:
        stages = self.backbone_stages()
        parts = {
            "stem": sum(stages[:2], ()),
            "backbone": sum(stages[2:], ()),
            "neck": ("backbone.fpn",),
            "rpn": ("rpn",),
            "box head": ("roi_heads.box_head", "roi_heads.box_predictor"),
        }
        if self.has_masks:
            parts["mask head"] = ("roi_heads.mask_head", "roi_heads.mask_predictor")
        if self.num_keypoints:
            parts["keypoint head"] = ("roi_heads.keypoint_head", "roi_heads.keypoint_predictor")
        return parts

    def last_layers(self) -> tuple[str, ...]:
        return tuple(f"roi_heads.{kind}_predictor" for kind in ("box", "mask", "keypoint"))

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return self._stages

    def forward(self, images: Sequence[Image], targets: Sequence[Target] | None = None) -> Losses | list[RawPrediction]:
        """Losses in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], already resized; any sizes from 1 x 1 pixel. Or what
                :meth:`frozen_features` gave for them, while the backbone is frozen.
            targets: needed in training mode: boxes float32 [N, 4], labels int64 [N] in 1..K, masks uint8 [N, H, W] for
                a mask head, keypoints float32 [N, P, 3] (x, y, visibility; 0 is not labelled and not learned from) for
                a keypoint head; N = 0 is a negative image.

        Raises:
            DataError: an image or target that breaks this contract, by its image_id.
        """
        check_images(images, targets)
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        if not self.training:
            return self._predict(images)
        check_targets(images, targets, len(self.description.class_map), self.has_masks, keypoints=self.num_keypoints)
        assert targets is not None
        self.keep_frozen()
        if self.levels():
            return self.losses_from_features(features or self.frozen_features(tensors), targets)
        self.check_norms_can_learn(tensors)
        maps = self._neck(self._backbone(self._batch(tensors)))
        return self._losses(maps, None, [size_of(image) for image in tensors], targets)

    @torch.no_grad()
    def frozen_features(
        self, images: Sequence[Tensor], level: str | None = None, *, alone: bool | None = None
    ) -> list[FrozenFeatures]:
        """With a frozen RPN, features of images run by themselves hold its proposals, by eval-mode settings."""
        alone = self.training if alone is None else alone
        found = super().frozen_features(images, level, alone=alone)
        if not (alone and self.is_frozen("rpn")):
            return found
        return [replace(one, proposals=self._frozen_proposals(one)) for one in found]

    @torch.no_grad()
    def _frozen_proposals(self, features: FrozenFeatures) -> Tensor:
        """The RPN's proposals float32 [P, 4] xyxy for one image, by eval-mode settings; for a frozen RPN."""
        maps = as_float(features.maps)
        maps = maps if features.level == "neck" else self._neck(maps)
        proposals: Tensor = self.rpn(frame_of([features.size_hw]), maps, None)[0][0]
        return proposals

    def losses_from_features(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> Losses:
        """The losses of a batch, from what :meth:`frozen_features` gave for each of its images."""
        proposals = None
        if self.is_frozen("rpn"):
            proposals = [self._frozen_proposals(one) if one.proposals is None else one.proposals for one in features]
        return self._losses(self._neck_of(features), proposals, [one.size_hw for one in features], targets)

    def _losses(
        self,
        maps: FeatureMaps,
        proposals: list[Tensor] | None,
        sizes_hw: Sequence[SizeHW],
        targets: Sequence[Target],
    ) -> Losses:
        """``proposals``: of a frozen RPN, which then has no loss; None to ask it."""
        rpn_losses: Losses = {}
        if proposals is None:
            proposals, rpn_losses = self.rpn(frame_of(sizes_hw), maps, list(targets))
        proposals = [_at_least_one(*image) for image in zip(proposals, sizes_hw, targets, strict=True)]
        _, head_losses = self.roi_heads(maps, proposals, list(sizes_hw), list(targets))
        return {**head_losses, **rpn_losses}

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
