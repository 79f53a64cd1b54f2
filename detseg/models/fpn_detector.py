"""What one-stage and two-stage detectors have in common: a backbone and a neck, run anew or known from features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detseg.models.base import FreezableModel
from detseg.models.features import FrozenFeatures, Image, as_float, of_each, split_inputs
from detseg.models.outputs import padded_alone
from detseg.models.padding import FeatureMaps, SizeHW, size_of, stack_maps, stack_padded
from detseg.structures import RawPrediction


class FpnDetector(FreezableModel):
    """A detector whose backbone gives maps, and whose neck gives those that the heads see.

    What is frozen is computed image by image in training, so that it depends on the image alone and can be computed
    once and kept (:meth:`frozen_features`).
    """

    backbone: Any  # torchvision's modules come without types

    @abstractmethod
    def predictions_from_neck(self, maps: FeatureMaps, sizes_hw: Sequence[SizeHW]) -> list[RawPrediction]:
        """Predictions from the neck's maps [N, C, h, w] of N images of equal padded size."""

    def levels(self) -> tuple[str, ...]:
        if not self.is_frozen("stem", "backbone"):
            return ()
        return ("neck", "backbone") if self.is_frozen("neck") else ("backbone",)

    @torch.no_grad()
    def frozen_features(
        self, images: Sequence[Tensor], level: str | None = None, *, alone: bool | None = None
    ) -> list[FrozenFeatures]:
        """What the frozen parts make of each image; given back in its place, it gives the same bits.

        In training mode each image is run by itself, so that its features depend on it alone. In eval mode images of
        equal padded size are run together, as for predictions, and their features belong together.

        Args:
            level: of :meth:`levels`; None for the last.
            alone: run each by itself; None for training mode.
        """
        level = level or self.levels()[0]

        def compute(group: Sequence[Tensor]) -> tuple[str, FeatureMaps]:
            maps = self._backbone(self._batch(group))
            return level, self._neck(maps) if level == "neck" else maps

        return of_each(images, compute, alone=self.training if alone is None else alone)

    def _batch(self, tensors: Sequence[Tensor]) -> Tensor:
        """float32 [N, 3, H', W'], normalised and padded to the largest."""
        return stack_padded([self.normalise(tensor) for tensor in tensors])

    def _backbone(self, batch: Tensor) -> FeatureMaps:
        return dict(self.backbone.body(batch))

    def _neck(self, backbone_maps: FeatureMaps) -> FeatureMaps:
        """The maps that the heads see, finest first."""
        return dict(self.backbone.fpn(backbone_maps))

    def _neck_of(self, features: Sequence[FrozenFeatures]) -> FeatureMaps:
        """The neck's maps [N, C, h, w], with gradients if it learns. A frozen one runs image by image in training."""
        maps = [as_float(one.maps) for one in features]
        if features[0].level == "backbone" and self.training and self.is_frozen("neck"):
            maps = [self._neck(one) for one in maps]
        elif features[0].level == "backbone":
            return self._neck(stack_maps(maps))
        return stack_maps(maps)

    @torch.no_grad()
    def _predict(self, images: Sequence[Image]) -> list[RawPrediction]:
        return padded_alone(images, self._predict_equal)

    def _predict_equal(self, images: Sequence[Image]) -> list[RawPrediction]:
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        maps = self._neck_of(features) if features else self._neck(self._backbone(self._batch(tensors)))
        return self.predictions_from_neck(maps, [size_of(image) for image in images])
