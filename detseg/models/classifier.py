"""Image classifier with the same interface as the detectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from detseg.errors import DataError
from detseg.models.backbones import BackboneSpec
from detseg.models.base import FreezableModel
from detseg.models.description import ModelDescription
from detseg.models.frozen_features import FrozenFeatures, Image, as_float, split_inputs
from detseg.models.input_checks import Target, check_images, image_name
from detseg.models.loss_names import loss_names
from detseg.models.padding import size_of
from detseg.structures import ClassPrediction, FieldPredictions

Losses = dict[str, Tensor]


class Classifier(FreezableModel):
    """A torchvision classification network with unchanged children and state-dict keys.

    In training mode it returns ``{"loss_classifier": cross entropy}``, in eval mode one :class:`ClassPrediction` per
    image. With several label fields it returns one ``loss_<field>`` per field, and :class:`FieldPredictions`: the last
    layer then holds the rows of all fields' linear heads, one field after the other.

    :meth:`pooled_features` and :meth:`head` are its two halves. With a frozen backbone the features of an image depend
    only on that image (it is processed alone, without gradients), so they can be computed once and cached
    (:meth:`frozen_features`).

    Attributes:
        correct_counts: "accuracy" (with several label fields "accuracy_<field>") -> int64 [2], number of correct
            predictions and of labelled images in the last batch in training mode.
    """

    def __init__(self, network: nn.Module, spec: BackboneSpec, description: ModelDescription) -> None:
        """``network``: a torchvision network with K outputs, one for each class of ``description.class_map``."""
        super().__init__(description)
        self._fields = description.label_fields
        self._field_sizes = [len(field) for field in self._fields] or [len(description.class_map)]
        for name, child in network.named_children():
            self.add_module(name, child)
        self._spec = spec
        self.correct_counts: dict[str, Tensor] = {}
        self._add_normalisation()

    def parts(self) -> dict[str, tuple[str, ...]]:
        stages = self.backbone_stages()
        return {"stem": sum(stages[:2], ()), "backbone": sum(stages[2:], ()), "head": (self._spec.head,)}

    def last_layers(self) -> tuple[str, ...]:
        return (self._spec.head,)

    def loss_names(self) -> tuple[str, ...]:
        return loss_names("classify", "rcnn", self._fields)

    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        return tuple(tuple(f"{self._spec.prefix}{name}" for name in stage) for stage in self._spec.stages)

    def forward(
        self, images: Sequence[Image], targets: Sequence[Target] | None = None
    ) -> Losses | list[ClassPrediction] | list[FieldPredictions]:
        """Compute the loss in training mode, predictions in eval mode.

        Args:
            images: uint8 or float32 in [0, 1], each [3, H, W], of equal size unless the backbone is frozen. Or the
                :meth:`frozen_features` of the images, if the backbone is frozen.
            targets: required in training mode: class_index int64 [] in 0..K-1; with T label fields [T], each in 0..K-1
                of its field, or -1 for no label, which adds nothing to the loss of that field.

        Raises:
            DataError: an image or target violates this contract.
        """
        check_images(images, targets)
        if not self.training:
            with torch.no_grad():
                return self._predictions(self.head(self.pooled_features(images)).float())
        class_index = self._class_indices(images, targets)
        self.keep_frozen()
        logits = self.head(self.pooled_features(images))
        by_field = self._by_field(logits)
        accuracies = [f"accuracy_{field.name}" for field in self._fields] or ["accuracy"]
        self.correct_counts = {
            name: _correct_and_labelled(field_logits, class_index[:, column])
            for column, (name, field_logits) in enumerate(zip(accuracies, by_field, strict=True))
        }
        if not self._fields:
            return {"loss_classifier": functional.cross_entropy(logits, class_index[:, 0])}
        return {
            name: _mean_over_labelled(field_logits, class_index[:, column])
            for column, (name, field_logits) in enumerate(zip(self.loss_names(), by_field, strict=True))
        }

    @torch.no_grad()
    def forward_tensors(self, image: Tensor) -> dict[str, Tensor]:
        """As in the base class. The name is probabilities, float32 [K]: with several label fields those of one field
        after the other, each field's with a sum of 1."""
        logits = self.head(self._pooled(self.normalise(image)[None])).float()
        return {"probabilities": torch.cat([field.softmax(dim=1) for field in self._by_field(logits)], dim=1)[0]}

    def levels(self) -> tuple[str, ...]:
        return ("pooled",) if self.is_frozen("stem", "backbone") else ()

    @torch.no_grad()
    def frozen_features(
        self, images: Sequence[Tensor], level: str | None = None, *, alone: bool | None = None
    ) -> list[FrozenFeatures]:
        """Compute the frozen backbone's features of each image; used instead of the image, they give bit-equal outputs.

        In training mode, and if sizes differ, images are processed one by one; else in one batch, as in prediction.

        Args:
            level: "pooled", the only one.
            alone: process images one by one; None: only in training mode.
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
        """Return float32 [N, D]: the last backbone map of each image, averaged over all its pixels."""
        tensors, features = split_inputs(images, self.levels(), self.description.arch)
        if features:
            return torch.cat([as_float(image_features.maps)["pooled"] for image_features in features])
        return self._pooled_images(tensors)

    def _pooled_images(self, images: Sequence[Tensor]) -> Tensor:
        if self.training and self.is_frozen("stem", "backbone"):
            with torch.no_grad():
                return torch.cat([self._pooled(self.normalise(image)[None]) for image in images])
        sizes = {size_of(image) for image in images}
        if not self.training and len(sizes) > 1:
            return torch.cat([self._pooled(self.normalise(image)[None]) for image in images])
        if len(sizes) > 1:
            raise DataError(
                f"images of a batch have sizes {sorted(sizes)}; training needs images of equal size: set a crop"
            )
        if self.training:
            self.check_norms_can_learn(images)
        return self._pooled(torch.stack([self.normalise(image) for image in images]))

    def head(self, features: Tensor) -> Tensor:
        """Map float32 [N, D] to logits [N, K]; with dropout in training mode if the architecture has it.

        With several label fields the K columns are the classes of ``joined(label_fields)``.
        """
        return self.get_submodule(self._spec.head)(features)

    def _pooled(self, batch: Tensor) -> Tensor:
        for name, child in self.named_children():
            if name != self._spec.head:
                batch = child(batch)
        # networks of timm and of users return a vector
        return batch if batch.ndim == 2 else functional.adaptive_avg_pool2d(batch, 1).flatten(1)

    def _by_field(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Split logits by field, each [N, K of the field]."""
        return torch.split(logits, self._field_sizes, dim=1)

    def _predictions(self, logits: Tensor) -> list[ClassPrediction] | list[FieldPredictions]:
        probabilities = [field_logits.softmax(dim=1).cpu().numpy() for field_logits in self._by_field(logits)]
        if not self._fields:
            return [ClassPrediction(row) for row in probabilities[0]]
        names = [field.name for field in self._fields]
        return [
            FieldPredictions({name: ClassPrediction(row) for name, row in zip(names, rows, strict=True)})
            for rows in zip(*probabilities, strict=True)
        ]

    def _class_indices(self, images: Sequence[Image], targets: Sequence[Target] | None) -> Tensor:
        """Return the targets' class indices, int64 [N, T], after checking them."""
        if targets is None or len(targets) != len(images):
            count = "no targets" if targets is None else f"{len(targets)} targets"
            raise DataError(f"{len(images)} images but {count}; training needs one target per image")
        shape = [len(self._fields)] if self._fields else []
        for target in targets:
            value = target.get("class_index")
            if not isinstance(value, Tensor) or list(value.shape) != shape or value.dtype != torch.int64:
                raise DataError(f"{image_name(target)}: class_index is {value!r}; an int64 tensor {shape} is required")
        indices = torch.stack([target["class_index"] for target in targets]).reshape(len(targets), -1)
        sizes = torch.tensor(self._field_sizes, device=indices.device)
        valid = (indices >= (-1 if self._fields else 0)) & (indices < sizes)
        if not bool(valid.all()):
            row, column = (int(index[0]) for index in torch.nonzero(~valid, as_tuple=True))
            field = f" of {self._fields[column].name}" if self._fields else ""
            remedy = "use -1 for no label" if self._fields else "remove images without a class from the training data"
            raise DataError(
                f"{image_name(targets[row])}: class_index {int(indices[row, column])}{field} is outside "
                f"0..{self._field_sizes[column] - 1}; {remedy}"
            )
        return indices


def _mean_over_labelled(logits: Tensor, class_index: Tensor) -> Tensor:
    """Return the mean cross entropy of the rows with a class (not -1); 0, with gradients of 0, if there are none."""
    total = functional.cross_entropy(logits, class_index, ignore_index=-1, reduction="sum")
    return total / (class_index >= 0).sum().clamp(min=1)


@torch.no_grad()
def _correct_and_labelled(logits: Tensor, class_index: Tensor) -> Tensor:
    """Return int64 [2]: the number of rows whose largest logit is that of their class, and of rows with a class."""
    return torch.stack([(logits.argmax(dim=1) == class_index).sum(), (class_index >= 0).sum()])
