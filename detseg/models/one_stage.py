"""SSDLite, RetinaNet and FCOS: torchvision's modules without its resizing; the input images are already resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from detseg.models.backbones import Stages
from detseg.models.description import ModelDescription
from detseg.models.fpn_detector import FpnDetector
from detseg.models.frozen_features import FrozenFeatures, Image, split_inputs
from detseg.models.input_checks import Target, check_images, check_targets
from detseg.models.loss_names import loss_names
from detseg.models.outputs import image_list_of
from detseg.models.padding import FeatureMaps, SizeHW, size_of
from detseg.structures import RawPrediction

Losses = dict[str, Tensor]

LOSS_NAMES = {
    "classification": "loss_classifier",
    "bbox_regression": "loss_box_reg",
    "bbox_ctrness": "loss_centerness",
}
"""torchvision's loss name -> ours, which is the name used by the two-stage detectors."""


class OneStageDetector(FpnDetector):
    """A detector without proposals. Its state dict has the keys of torchvision's detector of the same name.

    In training mode it returns the losses "loss_classifier" and "loss_box_reg", with FCOS also "loss_centerness"; the
    same keys for every batch, even without any instance (where all losses of SSDLite are 0: it samples three negatives
    per positive of an image). In eval mode it returns one :class:`RawPrediction` per image.

    Labels are 1..K. The heads have K + 1 rows like torchvision's, so that published weights fit; row 0 is the
    background in SSD's softmax; in the other two it is never a target, and its detections are discarded.

    Frozen parts are computed image by image, so their outputs depend only on the image and can be computed once and
    cached (:meth:`frozen_features`); the first trainable part gets the batch.

    Attributes:
        backbone, head: torchvision's modules. The neck is ``backbone.fpn``, in SSDLite ``backbone.extra``.
        description: everything needed to rebuild the model, except the weights.
    """

    # Any: torchvision's modules have no type annotations
    head: Any

    def __init__(self, network: Any, stages: Stages, description: ModelDescription) -> None:
        """Wrap a network.

        Args:
            network: a torchvision ``SSD``, ``RetinaNet`` or ``FCOS``, whose ``transform`` is not used.
            stages: names of the backbone's modules, stage by stage from input to output.
        """
        super().__init__(description)
        self.backbone = network.backbone
        self.head = network.head
        # Matching, losses and NMS are methods of torchvision's network. In a tuple it is not a child of this module, so
        # every parameter has one name, the same as in torchvision.
        self._network = (network,)
        self._is_ssd = isinstance(network, SSD)
        self._stages = stages
        self._add_normalisation()

    @property
    def network(self) -> Any:
        """torchvision's network around :attr:`backbone` and :attr:`head`, for its anchors, losses and NMS."""
        return self._network[0]

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {
            "stem": sum(self._stages[:2], ()),
            "backbone": sum(self._stages[2:], ()),
            "neck": ("backbone.extra" if self._is_ssd else "backbone.fpn",),
            "head": ("head",),
        }

    def last_layers(self) -> tuple[str, ...]:
        classes, boxes = "head.classification_head", "head.regression_head"
        if self._is_ssd:
            return f"{classes}.module_list", f"{boxes}.module_list"
        return f"{classes}.cls_logits", f"{boxes}.bbox_reg", f"{boxes}.bbox_ctrness"

    def loss_names(self) -> tuple[str, ...]:
        return loss_names("detect", "fcos" if isinstance(self.network, FCOS) else "other")

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return self._stages

    def forward(self, images: Sequence[Image], targets: Sequence[Target] | None = None) -> Losses | list[RawPrediction]:
        """Compute losses in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], already resized; any sizes from 1 x 1 pixel. (SSDLite's
                default boxes are relative to the image size, so all images must have the size of its preprocessing.)
                Or the :meth:`frozen_features` of the images, if the backbone is frozen.
            targets: required in training mode: boxes float32 [N, 4], labels int64 [N] in 1..K; N = 0 is a negative
                image.

        Raises:
            DataError: an image or target violates this contract; the message contains its image_id.
        """
        check_images(images, targets)
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        if not self.training:
            return self._predict(images)
        check_targets(images, targets, len(self.description.class_map), masks=False)
        assert targets is not None
        self.keep_frozen()
        if self.levels():
            return self.losses_from_features(features or self.frozen_features(tensors), targets)
        if not self._is_ssd:  # SSDLite's norm layers handle this case themselves
            self.check_norms_can_learn(tensors)
        maps = self._neck(self._backbone(self._batch(tensors)))
        return self._losses(maps, [size_of(image) for image in tensors], targets)

    def losses_from_features(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> Losses:
        """Compute the losses of a batch from the :meth:`frozen_features` of its images."""
        return self._losses(self._neck_of(features), [image.size_hw for image in features], targets)

    def _backbone(self, batch: Tensor) -> FeatureMaps:
        if not self._is_ssd:
            return super()._backbone(batch)
        maps = {}
        for name, block in self.backbone.features.named_children():
            maps[name] = batch = block(batch)
        return maps

    def _neck(self, backbone_maps: FeatureMaps) -> FeatureMaps:
        if not self._is_ssd:
            return super()._neck(backbone_maps)
        maps = dict(backbone_maps)
        last = list(maps.values())[-1]
        for block in self.backbone.extra:
            maps[str(len(maps))] = last = block(last)
        return maps

    def _losses(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW], targets: Sequence[Target]) -> Losses:
        outputs, anchors, counts = self._head(maps, image_list_of(sizes_hw))
        if self._is_ssd:
            matches = [self._ssd_matches(*image) for image in zip(anchors, targets, strict=True)]
            losses = self.network.compute_loss(list(targets), outputs, anchors, matches)
        elif "bbox_ctrness" in outputs:
            losses = self.network.compute_loss(list(targets), outputs, anchors, counts)
        else:
            losses = self.network.compute_loss(list(targets), outputs, anchors)
        return {name: losses[original] for original, name in LOSS_NAMES.items() if original in losses}

    def _head(self, maps: FeatureMaps, images: ImageList) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """Return the head's outputs [N, A, ...] for A anchors, the anchors [A, 4] of each image, and counts per map."""
        features = list(maps.values())
        outputs = self.head(features)
        anchors = self.network.anchor_generator(images, features)
        per_location = self.network.anchor_generator.num_anchors_per_location()
        counts = [
            feature.shape[2] * feature.shape[3] * count for feature, count in zip(features, per_location, strict=True)
        ]
        return outputs, anchors, counts

    def _ssd_matches(self, anchors: Tensor, target: Target) -> Tensor:
        """Return int64 [A]: the instance that each anchor is matched to, -1 for background, as in ``SSD.forward``."""
        if not len(target["boxes"]):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        return self.network.proposal_matcher(box_iou(target["boxes"], anchors))

    def detections_from_neck(self, maps: FeatureMaps, images: ImageList) -> list[dict[str, Tensor]]:
        outputs, anchors, counts = self._head(maps, images)
        detections: list[dict[str, Tensor]]
        if self._is_ssd:
            detections = self.network.postprocess_detections(outputs, anchors, images.image_sizes)
        else:
            outputs["cls_logits"][..., 0] = -torch.inf  # exclude label 0, which would replace real detections
            by_map = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
            anchors_by_map = [list(boxes.split(counts)) for boxes in anchors]
            detections = self.network.postprocess_detections(by_map, anchors_by_map, images.image_sizes)
        return detections
