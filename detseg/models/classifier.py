"""Image classification under the detectors' contract."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from detseg.errors import DataError
from detseg.models.backbones import BackboneSpec
from detseg.models.base import FreezableModel
from detseg.models.description import ModelDescription
from detseg.models.features import FrozenFeatures, Image, as_float, split_inputs
from detseg.models.input_checks import Target, check_images, name_of
from detseg.models.padding import size_of
from detseg.structures import ClassPrediction, FieldPredictions

Losses = dict[str, Tensor]


class Classifier(FreezableModel):
    """A torchvision classification network. Its children and state-dict keys are that network's own.

    Called in training mode it gives ``{"loss_classifier": cross entropy}``, in eval mode one :class:`ClassPrediction`
    per image. With several label fields it gives one ``loss_<field>`` each, and :class:`FieldPredictions`: the rows of
    the last layer are then the linear heads of the fields, one after the other.

    :meth:`pooled_features` and :meth:`head` are its two halves: with a frozen backbone the features of an image depend on
    that image alone (it is run by itself, without gradients) and can be computed once and kept
    (:meth:`frozen_features`).
    """

    def __init__(self, network: nn.Module, spec: BackboneSpec, description: ModelDescription) -> None:
        """``network``: as torchvision builds it, with K outputs: one for each class of ``description.class_map``."""
        super().__init__(description)
        self._fields = description.label_fields
        self._field_sizes = [len(field) for field in self._fields] or [len(description.class_map)]
        for name, child in network.named_children():
            self.add_module(name, child)
        self._spec = spec
        self._add_normalisation()

    def parts(self) -> dict[str, tuple[str, ...]]:
        stages = self.backbone_stages()
        return {"stem": sum(stages[:2], ()), "backbone": sum(stages[2:], ()), "head": (self._spec.head,)}

    def last_layers(self) -> tuple[str, ...]:
        return (self._spec.head,)

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(f"{self._spec.prefix}{name}" for name in stage) for stage in self._spec.stages)

    def forward(
        self, images: Sequence[Image], targets: Sequence[Target] | None = None
    ) -> Losses | list[ClassPrediction] | list[FieldPredictions]:
        """The loss in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], of equal size unless the backbone is frozen. Or what
                :meth:`frozen_features` gave for them, while the backbone is frozen.
            targets: needed in training mode: class_index int64 [] in 0..K-1; with T label fields [T], each in its own
                0..K-1, or -1 for none, which adds nothing to the loss of that field.

        Raises:
            DataError: an image or target that breaks this contract.
        """
        check_images(images, targets)
        if not self.training:
            with torch.no_grad():
                return self._predictions(self.head(self.pooled_features(images)).float())
        class_index = self._class_indices(images, targets)
        self.keep_frozen()
        logits = self.head(self.pooled_features(images))
        if not self._fields:
            return {"loss_classifier": functional.cross_entropy(logits, class_index[:, 0])}
        return {
            f"loss_{field.name}": _mean_over_labelled(part, class_index[:, column])
            for column, (field, part) in enumerate(zip(self._fields, self._by_field(logits), strict=True))
        }

    def levels(self) -> tuple[str, ...]:
        return ("pooled",) if self.is_frozen("stem", "backbone") else ()

    @torch.no_grad()
    def frozen_features(
        self, images: Sequence[Tensor], level: str | None = None, *, alone: bool | None = None
    ) -> list[FrozenFeatures]:
        """What the frozen backbone makes of each image; given back in its place, it gives the same bits.

        In training mode, and where sizes differ, each image is run by itself; else all together, as for predictions.

        Args:
            level: "pooled", the only one.
            alone: run each by itself; None for training mode.
        """
        alone = self.training if alone is None else alone
        groups = [[image] for image in images] if alone else [images]
        rows = torch.cat([self.pooled_features(group) for group in groups])
        level = level or self.levels()[0]
        return [
            FrozenFeatures(level, {"pooled": row[None]}, size_of(image))
            for image, row in zip(images, rows, strict=True)
        ]

    def pooled_features(self, images: Sequence[Image]) -> Tensor:
        """float32 [N, D]: the last backbone map of each image, averaged over the image."""
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        if features:
            return torch.cat([as_float(one.maps)["pooled"] for one in features])
        return self._pooled_images(tensors)

    def _pooled_images(self, images: Sequence[Tensor]) -> Tensor:
        if self.training and self.is_frozen("stem", "backbone"):
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
        """float32 [N, D] -> logits [N, K]; drops features out in training mode where the architecture does.

        With several label fields the K columns are those of ``joined(label_fields)``.
        """
        return self.get_submodule(self._spec.head)(features)

    def _pooled(self, batch: Tensor) -> Tensor:
        for name, child in self.named_children():
            if name != self._spec.head:
                batch = child(batch)
        # timm's networks, and a user's own, end in a vector
        return batch if batch.ndim == 2 else functional.adaptive_avg_pool2d(batch, 1).flatten(1)

    def _by_field(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Logits [N, K] of each field."""
        return torch.split(logits, self._field_sizes, dim=1)

    def _predictions(self, logits: Tensor) -> list[ClassPrediction] | list[FieldPredictions]:
        parts = [part.softmax(dim=1).cpu().numpy() for part in self._by_field(logits)]
        if not self._fields:
            return [ClassPrediction(row) for row in parts[0]]
        names = [field.name for field in self._fields]
        return [
            FieldPredictions({name: ClassPrediction(row) for name, row in zip(names, rows, strict=True)})
            for rows in zip(*parts, strict=True)
        ]

    def _class_indices(self, images: Sequence[Image], targets: Sequence[Target] | None) -> Tensor:
        """int64 [N, T] of the targets, checked."""
        if targets is None or len(targets) != len(images):
            given = "no targets" if targets is None else f"{len(targets)} targets"
            raise DataError(f"{len(images)} images but {given}; training needs one target per image")
        shape = [len(self._fields)] if self._fields else []
        for target in targets:
            value = target.get("class_index")
            if not isinstance(value, Tensor) or list(value.shape) != shape or value.dtype != torch.int64:
                raise DataError(f"{name_of(target)}: class_index is {value!r}; an int64 tensor {shape} is needed")
        indices = torch.stack([target["class_index"] for target in targets]).reshape(len(targets), -1)
        sizes = torch.tensor(self._field_sizes, device=indices.device)
        good = (indices >= (-1 if self._fields else 0)) & (indices < sizes)
        if not bool(good.all()):
            row, column = (int(place[0]) for place in torch.nonzero(~good, as_tuple=True))
            field = f" of {self._fields[column].name}" if self._fields else ""
            remedy = "none is -1" if self._fields else "leave images without a class out of the training data"
            raise DataError(
                f"{name_of(targets[row])}: class_index {int(indices[row, column])}{field} is outside "
                f"0..{self._field_sizes[column] - 1}; {remedy}"
            )
        return indices


def _mean_over_labelled(logits: Tensor, class_index: Tensor) -> Tensor:
    """Cross entropy of the rows that have a class (not -1), averaged over them; 0 with gradients of 0 if none has."""
    total = functional.cross_entropy(logits, class_index, ignore_index=-1, reduction="sum")
    return total / (class_index >= 0).sum().clamp(min=1)
