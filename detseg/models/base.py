"""Base class of detectors and classifiers: named parts, and freezing that survives ``train()``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from detseg.errors import DataError
from detseg.models.description import ModelDescription
from detseg.preprocess import Preprocessing

LAST_STRIDE = 32
"""Stride of the last backbone map in pixels, in all backbones."""


@dataclass(frozen=True)
class Part:
    """One row of the part table.

    Attributes:
        name: "stem", "backbone", "neck", "rpn", "box head", "mask head", "keypoint head" or "head".
        parameters: number of parameter elements.
        trainable: number of trainable ones.
    """

    name: str
    parameters: int
    trainable: int

    def line(self) -> str:
        """Return one line of text, such as ``  backbone            10.8 M  frozen``."""
        state = "trainable" if self.trainable == self.parameters else "partly trainable" if self.trainable else "frozen"
        return f"  {self.name:13}  {self.parameters / 1e6:6.2f} M  {state}"


class FreezableModel(nn.Module, ABC):
    """A model with named parts, of which the first ones can be frozen permanently.

    Frozen means: no gradients and fixed norm statistics (eval mode), even if ``train()`` is called on this model, its
    parents or its children: the frozen modules are set back to eval mode before every forward pass in training.

    Attributes:
        norm_eval: the backbone's norm layers use their stored statistics in training too and do not update them; their
            weights and biases stay trainable. Useful for a pretrained backbone and batches of a few images, whose
            batch statistics are noise.
    """

    description: ModelDescription
    mean: Tensor
    std: Tensor

    def __init__(self, description: ModelDescription) -> None:
        super().__init__()
        self.description = description
        self.frozen_modules: tuple[str, ...] = ()
        self.norm_eval = False

    @property
    def preprocessing(self) -> Preprocessing:
        return self.description.preprocessing

    @abstractmethod
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return part name -> names of its modules, in order of computation. Together they contain every parameter."""

    @abstractmethod
    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the modules of each backbone stage, from input to output."""

    def set_frozen(self, modules: Iterable[str]) -> None:
        """Freeze these modules and make all others trainable."""
        self.frozen_modules = tuple(modules)
        self.requires_grad_(True)
        for name in self.frozen_modules:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def is_frozen(self, *parts: str) -> bool:
        """Whether every module of these parts is frozen."""
        names = self.parts()
        return all(module in self.frozen_modules for part in parts for module in names[part])

    def levels(self) -> tuple[str, ...]:
        """Return the feature levels that can be cached, the last first: all parts before them are frozen."""
        return ()

    def part_of(self, name: str) -> str:
        """Return the part of a parameter or buffer, by its name in the state dict."""
        for part, modules in self.parts().items():
            if any(name.startswith(f"{module}.") for module in modules):
                return part
        raise KeyError(name)

    def is_backbone_parameter(self, name: str) -> bool:
        """Return whether this parameter belongs to the stem or the backbone; for optimizer parameter groups."""
        return self.part_of(name) in ("stem", "backbone")

    @abstractmethod
    def last_layers(self) -> tuple[str, ...]:
        """Return the names of the output layers for classes, boxes, masks and keypoints, often randomly initialized."""

    @abstractmethod
    def forward_tensors(self, image: Tensor) -> dict[str, Tensor]:
        """Predict one image with tensor operations only, in eval mode; a trace of it accepts images of other sizes.

        The outputs by name are those of ``detseg.export``: boxes, labels, scores, masks or heatmaps; or probabilities.

        Args:
            image: uint8 [3, h, w], already resized.
        """

    @abstractmethod
    def loss_names(self) -> tuple[str, ...]:
        """Return the names of the losses in training mode, with the current frozen parts."""

    def is_last_parameter(self, name: str) -> bool:
        """Return whether this parameter belongs to the output layers; for optimizer parameter groups."""
        return any(name.startswith(f"{module}.") for module in self.last_layers())

    def train(self, mode: bool = True) -> FreezableModel:
        super().train(mode)
        self.keep_frozen()
        return self

    def keep_frozen(self) -> None:
        """Set frozen modules, and norm layers under ``norm_eval``, to eval mode, which fixes their statistics."""
        for name in self.frozen_modules:
            self.get_submodule(name).eval()
        if self.norm_eval:
            for stage in self.backbone_stages():
                for name in stage:
                    for module in self.get_submodule(name).modules():
                        if isinstance(module, _BatchNorm):
                            module.eval()

    def check_norms_can_learn(self, images: Sequence[Tensor]) -> None:
        """Check that BatchNorm in training gets more than one value per channel; one tiny image leaves a single one.

        Raises:
            DataError: a batch of one image of at most 32 x 32 pixels, and a backbone whose norm statistics are updated.
        """
        single = len(images) == 1 and max(images[0].shape[1:]) <= LAST_STRIDE
        fixed = self.norm_eval or self.is_frozen("stem", "backbone")
        if single and self.description.norm == "batch" and not fixed:
            height, width = images[0].shape[1:]
            raise DataError(
                f"a batch of one image of {width} x {height} pixels leaves BatchNorm a single value per channel; "
                f"use images larger than {LAST_STRIDE} pixels, at least two images per batch, or --freeze backbone"
            )

    def _add_normalisation(self) -> None:
        """Add buffers ``mean`` and ``std`` [3, 1, 1], which move with the model but are not in its state dict."""
        for name, values in (("mean", self.preprocessing.mean), ("std", self.preprocessing.std)):
            self.register_buffer(name, Tensor(values).view(3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """Convert uint8 or float32 [0, 1] [3, H, W] to float32, normalised with the model's ``mean`` and ``std``."""
        scaled = image if image.is_floating_point() else image.float() / 255
        return (scaled - self.mean) / self.std
