"""A form of a network that ``torch.jit.trace`` accepts: one image tensor in, a tuple of tensors out."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from detseg.models.base import FreezableModel
from detseg.models.classifier import Classifier
from detseg.models.detector import Detector
from detseg.models.outputs import image_list_of
from detseg.models.padding import size_of, stack_padded


class Traceable(nn.Module):
    """Everything that a network computes for one image before it becomes numpy arrays, in eval mode.

    Args:
        model: a model of this project, which is set to eval mode by :meth:`forward`'s caller and not changed.
    """

    def __init__(self, model: FreezableModel) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map float32 [3, H, W] in [0, 1] to the logits of a classifier; to boxes, labels, scores and masks or
        keypoints of an R-CNN; to the outputs of the head of a one-stage detector."""
        model = self.model
        if isinstance(model, Classifier):
            return (model.head(model._pooled(model.normalise(image)[None])),)
        batch = stack_padded([model.normalise(image)])
        maps = model._neck(model._backbone(batch))
        if not isinstance(model, Detector):
            return tuple(model.head(list(maps.values())).values())
        sizes = [size_of(image)]
        proposals, _ = model.rpn(image_list_of(sizes), maps, None)
        detections, _ = model.roi_heads(maps, proposals, sizes, None)
        return tuple(detections[0].values())
