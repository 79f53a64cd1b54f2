"""Image classification under the detectors' contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from detseg.errors import DataError
from detseg.models.bodies import Body
from detseg.models.description import ModelDescription
from detseg.models.door import Target, check_images, name_of
from detseg.models.padding import size_of
from detseg.models.parts import PartedModel
from detseg.structures import ClassPrediction

Losses = dict[str, Tensor]


class Classifier(PartedModel):
    """A torchvision classification network. Its children and state-dict keys are that network's own.

    Called in training mode it gives ``{"loss_classifier": cross entropy}``, in eval mode one :class:`ClassPrediction`
    per image. :meth:`pooled_features` and :meth:`head` are its two halves: with a frozen body the features of an image
    depend on that image alone (it is run by itself, without gradients) and can be computed once and kept.
    """

    def __init__(self, network: nn.Module, body: Body, description: ModelDescription) -> None:
        """``network``: as torchvision builds it, with K outputs."""
        super().__init__(description)
        for name, child in network.named_children():
            self.add_module(name, child)
        self._body = body
        self._add_normalisation()

    def parts(self) -> dict[str, tuple[str, ...]]:
        stages = self.body_stages()
        return {"stem": sum(stages[:2], ()), "body": sum(stages[2:], ()), "head": (self._body.head,)}

    def body_stages(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(f"{self._body.prefix}{name}" for name in stage) for stage in self._body.stages)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> Losses | list[ClassPrediction]:
        """The loss in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], of equal size unless the body is frozen.
            targets: needed in training mode: class_index int64 [] in 0..K-1.

        Raises:
            DataError: an image or target that breaks this contract.
        """
        check_images(images)
        if not self.training:
            with torch.no_grad():
                return [ClassPrediction(row) for row in self._probabilities(images).cpu().numpy()]
        class_index = self._class_indices(images, targets)
        self.keep_frozen()
        return {"loss_classifier": functional.cross_entropy(self.head(self.pooled_features(images)), class_index)}

    def pooled_features(self, images: Sequence[Tensor]) -> Tensor:
        """float32 [N, D]: the last body map of each image, averaged over the picture."""
        if self.training and self.is_frozen("stem", "body"):
            with torch.no_grad():
                return torch.cat([self._pooled(self.normalise(image)[None]) for image in images])
        sizes = {size_of(image) for image in images}
        if not self.training and len(sizes) > 1:
            return torch.cat([self._pooled(self.normalise(image)[None]) for image in images])
        if len(sizes) > 1:
            raise DataError(f"images of a batch are of sizes {sorted(sizes)}; training needs one size, set a crop")
        if self.training:
            self.check_norms_can_learn(images)
        return self._pooled(torch.stack([self.normalise(image) for image in images]))

    def head(self, features: Tensor) -> Tensor:
        """float32 [N, D] -> logits [N, K]; drops features out in training mode where the architecture does."""
        return self.get_submodule(self._body.head)(features)

    def _pooled(self, batch: Tensor) -> Tensor:
        for name, child in self.named_children():
            if name != self._body.head:
                batch = child(batch)
        return functional.adaptive_avg_pool2d(batch, 1).flatten(1)

    def _probabilities(self, images: Sequence[Tensor]) -> Tensor:
        return self.head(self.pooled_features(images)).float().softmax(dim=1)

    def _class_indices(self, images: Sequence[Tensor], targets: Sequence[Target] | None) -> Tensor:
        if targets is None or len(targets) != len(images):
            given = "no targets" if targets is None else f"{len(targets)} targets"
            raise DataError(f"{len(images)} images but {given}; training needs one target per image")
        classes = len(self.description.class_map)
        for target in targets:
            value = target.get("class_index")
            if not isinstance(value, Tensor) or value.ndim or value.dtype != torch.int64:
                raise DataError(f"{name_of(target)}: class_index is {value!r}; an int64 tensor [] is needed")
        indices = torch.stack([target["class_index"] for target in targets])
        good = (indices >= 0) & (indices < classes)
        if not bool(good.all()):
            row = int(good.int().argmin())
            raise DataError(
                f"{name_of(targets[row])}: class_index {int(indices[row])} is outside 0..{classes - 1}; "
                "leave images without a class out of the training data"
            )
        return indices
