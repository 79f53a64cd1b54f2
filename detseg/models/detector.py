"""Faster, Mask and Keypoint R-CNN: torchvision's modules without its resizing; the input images are already resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from detseg.models.backbones import BackboneSpec
from detseg.models.description import ModelDescription
from detseg.models.fpn_detector import FpnDetector
from detseg.models.frozen_features import FrozenFeatures, Image, as_float, split_inputs
from detseg.models.input_checks import Target, check_images, check_targets
from detseg.models.loss_names import loss_names
from detseg.models.outputs import image_list_of
from detseg.models.padding import FeatureMaps, SizeHW, size_of
from detseg.structures import RawPrediction

Losses = dict[str, Tensor]


class Detector(FpnDetector):
    """A two-stage detector. Its state dict has the keys of torchvision's detector of the same name.

    In training mode it returns losses: "loss_classifier", "loss_box_reg", "loss_objectness" and "loss_rpn_box_reg" (the
    last two not with a frozen RPN), with a mask head "loss_mask", with a keypoint head "loss_keypoint"; the same keys
    for every batch, even without any instance or labelled keypoint. In eval mode it returns one :class:`RawPrediction`
    per image.

    Frozen parts are computed image by image, so their outputs depend only on the image and can be computed once and
    cached (:meth:`frozen_features`); the first trainable part gets the batch. If everything is trainable, or only the
    stem is frozen, the images are padded to the largest of the batch as in torchvision.

    Random numbers: training samples anchors and RoIs with torch's global generator; the caller seeds it.

    Attributes:
        backbone, rpn, roi_heads: torchvision's modules.
        description: everything needed to rebuild the model, except the weights.
    """

    # Any: torchvision's modules have no type annotations
    rpn: Any
    roi_heads: Any

    def __init__(self, network: Any, spec: BackboneSpec, description: ModelDescription) -> None:
        """``network``: torchvision's ``FasterRCNN``, ``MaskRCNN`` or ``KeypointRCNN``; ``transform`` is not used."""
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
        """Number of keypoints P; 0 for a model without keypoints."""
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

    def loss_names(self) -> tuple[str, ...]:
        return loss_names(self.description.task, "rcnn", rpn_frozen=self.is_frozen("rpn"))

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return self._stages

    def forward(self, images: Sequence[Image], targets: Sequence[Target] | None = None) -> Losses | list[RawPrediction]:
        """Compute losses in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], already resized; any sizes from 1 x 1 pixel. Or the
                :meth:`frozen_features` of the images, if the backbone is frozen.
            targets: required in training mode: boxes float32 [N, 4], labels int64 [N] in 1..K, masks uint8 [N, H, W]
                for a mask head, keypoints float32 [N, P, 3] (x, y, visibility; 0: not labelled, no loss) for a
                keypoint head; N = 0 is a negative image.

        Raises:
            DataError: an image or target violates this contract; the message contains its image_id.
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
        """As in the base class; with a frozen RPN and ``alone`` they include its proposals, with eval-mode settings."""
        alone = self.training if alone is None else alone
        features = super().frozen_features(images, level, alone=alone)
        if not (alone and self.is_frozen("rpn")):
            return features
        return [replace(image, proposals=self._frozen_proposals(image)) for image in features]

    @torch.no_grad()
    def _frozen_proposals(self, features: FrozenFeatures) -> Tensor:
        """Return the frozen RPN's proposals float32 [P, 4] xyxy for one image, with eval-mode settings."""
        maps = as_float(features.maps)
        maps = maps if features.level == "neck" else self._neck(maps)
        proposals: Tensor = self.rpn(image_list_of([features.size_hw]), maps, None)[0][0]
        return proposals

    def losses_from_features(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> Losses:
        """Compute the losses of a batch from the :meth:`frozen_features` of its images."""
        proposals = None
        if self.is_frozen("rpn"):
            proposals = [
                self._frozen_proposals(image) if image.proposals is None else image.proposals for image in features
            ]
        return self._losses(self._neck_of(features), proposals, [image.size_hw for image in features], targets)

    def _losses(
        self,
        maps: FeatureMaps,
        proposals: list[Tensor] | None,
        sizes_hw: Sequence[SizeHW],
        targets: Sequence[Target],
    ) -> Losses:
        """``proposals``: those of a frozen RPN, which has no loss; None to run the RPN."""
        rpn_losses: Losses = {}
        if proposals is None:
            proposals, rpn_losses = self.rpn(image_list_of(sizes_hw), maps, list(targets))
        proposals = [_with_fallback(*image) for image in zip(proposals, sizes_hw, targets, strict=True)]
        _, head_losses = self.roi_heads(maps, proposals, list(sizes_hw), list(targets))
        return {**head_losses, **rpn_losses}

    def detections_from_neck(self, maps: FeatureMaps, images: ImageList) -> list[dict[str, Tensor]]:
        proposals, _ = self.rpn(images, maps, None)
        detections: list[dict[str, Tensor]] = self.roi_heads(maps, proposals, images.image_sizes, None)[0]
        return detections

    def _tensors_from_neck(self, maps: FeatureMaps, images: ImageList) -> dict[str, Tensor]:
        """As in the base class; with a mask head also masks float32 [M, 28, 28], probabilities inside each box; with
        a keypoint head heatmaps float32 [M, P, 56, 56], logits inside each box, which ``detseg.export`` decodes: to
        enlarge them to the size of each box in a trace takes a loop over the boxes."""
        if not self.num_keypoints:
            detection = self.detections_from_neck(maps, images)[0]
            masks = {"masks": detection["masks"][:, 0]} if self.has_masks else {}
            return {name: detection[name] for name in ("boxes", "labels", "scores")} | masks
        proposals, _ = self.rpn(images, maps, None)
        heads, sizes = self.roi_heads, images.image_sizes
        logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(maps, proposals, sizes)))
        boxes, scores, labels = heads.postprocess_detections(logits, deltas, proposals, sizes)
        pooled = heads.keypoint_head(heads.keypoint_roi_pool(maps, boxes, sizes))
        heatmaps = heads.keypoint_predictor(pooled)
        return {"boxes": boxes[0], "labels": labels[0], "scores": scores[0], "heatmaps": heatmaps}


def _with_fallback(proposals: Tensor, size_hw: SizeHW, target: Target) -> Tensor:
    """Use the whole image as the proposal of a negative image without any: a mean over zero RoIs would be NaN."""
    if len(proposals) or len(target["boxes"]):
        return proposals
    return proposals.new_tensor([[0, 0, size_hw[1], size_hw[0]]])
