"""What detectors and classifiers have in common: named parts, and freezing that lasts."""

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
"""Pixels of the image for each pixel of the last backbone map, in all backbones."""


@dataclass(frozen=True)
class Part:
    """One row of the table of parts.

    Attributes:
        name: "stem", "backbone", "neck", "rpn", "box head", "mask head", "keypoint head" or "head".
        parameters: how many numbers in it.
        trainable: how many of them learn.
    """

    name: str
    parameters: int
    trainable: int

    def line(self) -> str:
        """``  backbone            10.8 M  frozen``"""
        state = "trainable" if self.trainable == self.parameters else "partly trainable" if self.trainable else "frozen"
        return f"  {self.name:13}  {self.parameters / 1e6:6.2f} M  {state}"


class FreezableModel(nn.Module, ABC):
    """A model with named parts, of which the first ones can be frozen for good.

    Frozen means: no gradients, norm statistics fixed (eval mode), whatever ``train()`` is called on this model, its
    parents or its children: the frozen modules are put back to eval mode before every forward pass in training.

    Attributes:
        norm_eval: the backbone's norm layers use and keep their statistics in training too, while their weights and biases
            learn. Right for a pretrained backbone and batches of a few images, whose own statistics are noise.
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
        """Part name -> names of its modules, in the order of the computation. Together they hold every parameter."""

    @abstractmethod
    def backbone_stages(self) -> tuple[tuple[str, ...], ...]:
        """Names of the modules of each backbone stage, from input to output."""

    def set_frozen(self, modules: Iterable[str]) -> None:
        """Freeze these modules and wake all others."""
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
        """Where features of an image can be taken and kept: behind which parts all is frozen, the last first."""
        return ()

    def part_of(self, name: str) -> str:
        """The part that a parameter or buffer belongs to, by its name in the state dict."""
        for part, modules in self.parts().items():
            if any(name.startswith(f"{module}.") for module in modules):
                return part
        raise KeyError(name)

    def is_backbone_parameter(self, name: str) -> bool:
        """Whether a parameter belongs to the stem or the backbone, by its name; layer groups of optimizers ask."""
        return self.part_of(name) in ("stem", "backbone")

    @abstractmethod
    def last_layers(self) -> tuple[str, ...]:
        """Names of the modules that give classes, boxes, masks or keypoints, some of which start from scratch."""

    def is_last_parameter(self, name: str) -> bool:
        """Whether a parameter belongs to the last layers, by its name; layer groups of optimizers ask."""
        return any(name.startswith(f"{module}.") for module in self.last_layers())

    def train(self, mode: bool = True) -> FreezableModel:
        super().train(mode)
        self.keep_frozen()
        return self

    def keep_frozen(self) -> None:
        """Put into eval mode what is frozen, and norm layers under ``norm_eval``, so that their statistics stay."""
        for name in self.frozen_modules:
            self.get_submodule(name).eval()
        if self.norm_eval:
            for stage in self.backbone_stages():
                for name in stage:
                    for module in self.get_submodule(name).modules():
                        if isinstance(module, _BatchNorm):
                            module.eval()

    def check_norms_can_learn(self, images: Sequence[Tensor]) -> None:
        """BatchNorm that learns needs more than one value, which one tiny image does not leave on the last map.

        Raises:
            DataError: a batch of one image of at most 32 x 32 pixels, and a backbone that learns its norm statistics.
        """
        single = len(images) == 1 and max(images[0].shape[1:]) <= LAST_STRIDE
        fixed = self.norm_eval or self.is_frozen("stem", "backbone")
        if single and self.description.norm == "batch" and not fixed:
            height, width = images[0].shape[1:]
            raise DataError(
                f"a batch of one image of {width} x {height} pixels leaves BatchNorm a single value to learn from; "
                f"use images over {LAST_STRIDE} pixels, two images a batch, or --freeze backbone"
            )

    def _add_normalisation(self) -> None:
        """Buffers ``mean`` and ``std`` [3, 1, 1]: they move with the model and stay out of its state dict."""
        for name, values in (("mean", self.preprocessing.mean), ("std", self.preprocessing.std)):
            self.register_buffer(name, Tensor(values).view(3, 1, 1), persistent=False)

    def normalise(self, image: Tensor) -> Tensor:
        """uint8 or float32 [0, 1] [3, H, W] -> float32 with the mean and standard deviation of the training data."""
        scaled = image if image.is_floating_point() else image.float() / 255
        return (scaled - self.mean) / self.std
