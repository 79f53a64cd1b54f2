"""Base class of one-stage and two-stage detectors: a backbone and a neck, computed or read from features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

from detseg.models.base import LAST_STRIDE, FreezableModel
from detseg.models.frozen_features import FrozenFeatures, Image, as_float, compute_features, split_inputs
from detseg.models.outputs import image_list_of, predict_by_padded_size, raw_prediction
from detseg.models.padding import FeatureMaps, SizeHW, size_of, stack_maps, stack_padded
from detseg.structures import RawPrediction


class FpnDetector(FreezableModel):
    """A detector whose backbone returns feature maps, and whose neck turns them into the input of the heads.

    In training, frozen parts are computed image by image, so their outputs depend only on the image and can be
    computed once and cached (:meth:`frozen_features`).
    """

    backbone: Any  # torchvision's modules have no type annotations

    @abstractmethod
    def detections_from_neck(self, maps: FeatureMaps, images: ImageList) -> list[dict[str, Tensor]]:
        """Compute torchvision's prediction dicts from the neck's maps [N, C, h, w] of N images of equal padded size."""

    @torch.no_grad()
    def predictions_from_neck(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW]) -> list[RawPrediction]:
        """Compute predictions from the neck's maps [N, C, h, w] of N images of equal padded size."""
        return [raw_prediction(detection) for detection in self.detections_from_neck(maps, image_list_of(sizes_hw))]

    @torch.no_grad()
    def forward_tensors(self, image: Tensor) -> dict[str, Tensor]:
        """As in the base class. The names are boxes float32 [M, 4] in pixels of the image, labels int64 [M], scores
        float32 [M], and those of ``_tensors_from_neck``."""
        height, width = image.shape[1], image.shape[2]  # in a trace they are tensors, so that it has no fixed size
        padding = (0, -width % LAST_STRIDE, 0, -height % LAST_STRIDE)
        batch = functional.pad(self.normalise(image), padding)[None]
        return self._tensors_from_neck(self._neck(self._backbone(batch)), ImageList(batch, [(height, width)]))

    def _tensors_from_neck(self, maps: FeatureMaps, images: ImageList) -> dict[str, Tensor]:
        """Return the outputs of :meth:`forward_tensors` from the neck's maps of one image."""
        detection = self.detections_from_neck(maps, images)[0]
        return {name: detection[name] for name in ("boxes", "labels", "scores")}

    def levels(self) -> tuple[str, ...]:
        if not self.is_frozen("stem", "backbone"):
            return ()
        return ("neck", "backbone") if self.is_frozen("neck") else ("backbone",)

    @torch.no_grad()
    def frozen_features(
        self, images: Sequence[Tensor], level: str | None = None, *, alone: bool | None = None
    ) -> list[FrozenFeatures]:
        """Compute the frozen parts' features of each image; used instead of the image, they give bit-equal outputs.

        In training mode each image is processed alone, so its features depend only on it. In eval mode images of equal
        padded size are processed in one batch, as in prediction, and their features must be used together.

        Args:
            level: one of :meth:`levels`; None for the last.
            alone: process images one by one; None: only in training mode.
        """
        level = level or self.levels()[0]

        def compute(group: Sequence[Tensor]) -> tuple[str, FeatureMaps]:
            maps = self._backbone(self._batch(group))
            return level, self._neck(maps) if level == "neck" else maps

        return compute_features(images, compute, alone=self.training if alone is None else alone)

    @torch.no_grad()
    def pooled_features(self, images: Sequence[Tensor]) -> Tensor:
        """Return float32 [N, D]: the last backbone map of each image, averaged over all its pixels."""
        return list(self._backbone(self._batch(images)).values())[-1].mean(dim=(2, 3))

    def _batch(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return float32 [N, 3, H', W'], normalised and padded to the largest image."""
        return stack_padded([self.normalise(tensor) for tensor in tensors])

    def _backbone(self, batch: Tensor) -> FeatureMaps:
        return dict(self.backbone.body(batch))

    def _neck(self, backbone_maps: FeatureMaps) -> FeatureMaps:
        """Return the input maps of the heads, finest first."""
        return dict(self.backbone.fpn(backbone_maps))

    def _neck_of(self, features: Sequence[FrozenFeatures]) -> FeatureMaps:
        """Return the neck's maps [N, C, h, w], with gradients if it is trainable; if frozen, per image in training."""
        maps = [as_float(image.maps) for image in features]
        if features[0].level == "backbone" and self.training and self.is_frozen("neck"):
            maps = [self._neck(backbone_maps) for backbone_maps in maps]
        elif features[0].level == "backbone":
            return self._neck(stack_maps(maps))
        return stack_maps(maps)

    @torch.no_grad()
    def _predict(self, images: Sequence[Image]) -> list[RawPrediction]:
        return predict_by_padded_size(images, self._predict_equal)

    def _predict_equal(self, images: Sequence[Image]) -> list[RawPrediction]:
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        maps = self._neck_of(features) if features else self._neck(self._backbone(self._batch(tensors)))
        return self.predictions_from_neck(maps, [size_of(image) for image in images])
