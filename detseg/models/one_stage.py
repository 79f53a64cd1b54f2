"""SSDLite, RetinaNet and FCOS: torchvision's modules, fed with images that are already of the network's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from detseg.models.backbones import Stages
from detseg.models.description import ModelDescription
from detseg.models.features import FrozenFeatures, Image, split_inputs
from detseg.models.fpn_detector import FpnDetector
from detseg.models.input_checks import Target, check_images, check_targets
from detseg.models.outputs import frame_of, raw_prediction
from detseg.models.padding import FeatureMaps, SizeHW, size_of
from detseg.structures import RawPrediction

Losses = dict[str, Tensor]

LOSS_NAMES = {
    "classification": "loss_classifier",
    "bbox_regression": "loss_box_reg",
    "bbox_ctrness": "loss_centerness",
}
"""torchvision's names of the losses, and ours, which are those of the two-stage detectors."""


class OneStageDetector(FpnDetector):
    """A detector without proposals. Its state dict has the keys of torchvision's detector of the same name.

    Called in training mode it gives the losses "loss_classifier" and "loss_box_reg", with FCOS also "loss_centerness";
    the same keys for every batch, also one without any instance (from which SSDLite learns nothing: its negatives are
    mined three to each positive of the image). Called in eval mode it gives one :class:`RawPrediction` per image.

    Labels are 1..K. The heads have K + 1 rows as torchvision's, so that published weights fit; row 0 is the background
    in SSD's softmax, and never a target in the other two, whose detections of it are left out.

    What is frozen is computed image by image, so that it depends on the image alone and can be computed once and kept
    (:meth:`frozen_features`); the first trainable part gets the batch.

    Attributes:
        backbone, head: torchvision's modules. The neck is ``backbone.fpn``, in SSDLite ``backbone.extra``.
        description: what the model is rebuilt from.
    """

    # Any: torchvision's modules come without types
    head: Any

    def __init__(self, network: Any, stages: Stages, description: ModelDescription) -> None:
        """Wrap a network.

        Args:
            network: a torchvision ``SSD``, ``RetinaNet`` or ``FCOS``, whose ``transform`` is left behind.
            stages: names of the backbone's modules, stage by stage from input to output.
        """
        super().__init__(description)
        self.backbone = network.backbone
        self.head = network.head
        # Matching, losses and NMS are methods of torchvision's network. In a tuple it is no child of this module, so
        # that parameters are named once, as torchvision names them.
        self._rules = (network,)
        self._is_ssd = isinstance(network, SSD)
        self._stages = stages
        self._add_normalisation()

    @property
    def network(self) -> Any:
        """torchvision's network around :attr:`backbone` and :attr:`head`, for its anchors, losses and NMS."""
        return self._rules[0]

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

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return self._stages

    def forward(self, images: Sequence[Image], targets: Sequence[Target] | None = None) -> Losses | list[RawPrediction]:
        """Losses in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], already resized; any sizes from 1 x 1 pixel. (SSDLite's
                default boxes are shares of the image, so it wants all of one size, the one of its preprocessing.) Or
                what :meth:`frozen_features` gave for them, while the backbone is frozen.
            targets: needed in training mode: boxes float32 [N, 4], labels int64 [N] in 1..K; N = 0 is a negative image.

        Raises:
            DataError: an image or target that breaks this contract, by its image_id.
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
        if not self._is_ssd:  # whose norm layers look after themselves
            self.check_norms_can_learn(tensors)
        maps = self._neck(self._backbone(self._batch(tensors)))
        return self._losses(maps, [size_of(image) for image in tensors], targets)

    def losses_from_features(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> Losses:
        """The losses of a batch, from what :meth:`frozen_features` gave for each of its images."""
        return self._losses(self._neck_of(features), [one.size_hw for one in features], targets)

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
        outputs, anchors, counts = self._head(maps, sizes_hw)
        if self._is_ssd:
            matches = [self._ssd_matches(*image) for image in zip(anchors, targets, strict=True)]
            losses = self.network.compute_loss(list(targets), outputs, anchors, matches)
        elif "bbox_ctrness" in outputs:
            losses = self.network.compute_loss(list(targets), outputs, anchors, counts)
        else:
            losses = self.network.compute_loss(list(targets), outputs, anchors)
        return {name: losses[theirs] for theirs, name in LOSS_NAMES.items() if theirs in losses}

    def _head(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW]) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """What the head says [N, A, ...] of all A anchors, each image's anchors [A, 4], and how many each map has."""
        features = list(maps.values())
        outputs = self.head(features)
        anchors = self.network.anchor_generator(frame_of(sizes_hw), features)
        per_location = self.network.anchor_generator.num_anchors_per_location()
        counts = [
            feature.shape[2] * feature.shape[3] * count for feature, count in zip(features, per_location, strict=True)
        ]
        return outputs, anchors, counts

    def _ssd_matches(self, anchors: Tensor, target: Target) -> Tensor:
        """int64 [A]: the instance that each anchor stands for, -1 for background (``SSD.forward`` does the same)."""
        if not len(target["boxes"]):
            return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
        return self.network.proposal_matcher(box_iou(target["boxes"], anchors))

    @torch.no_grad()
    def predictions_from_neck(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW]) -> list[RawPrediction]:
        outputs, anchors, counts = self._head(maps, sizes_hw)
        if self._is_ssd:
            detections = self.network.postprocess_detections(outputs, anchors, list(sizes_hw))
        else:
            outputs["cls_logits"][..., 0] = -torch.inf  # no label 0: it would take places of real detections
            by_map = {name: list(output.split(counts, dim=1)) for name, output in outputs.items()}
            anchors_by_map = [list(boxes.split(counts)) for boxes in anchors]
            detections = self.network.postprocess_detections(by_map, anchors_by_map, list(sizes_hw))
        return [raw_prediction(detection) for detection in detections]
