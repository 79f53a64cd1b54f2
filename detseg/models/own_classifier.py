"""Wrap a user's network as a classifier of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models.backbones import BackboneSpec
from detseg.models.classifier import Classifier
from detseg.models.description import ModelDescription
from detseg.pixel_values import checked_range
from detseg.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

OWN = "own"
"""``arch`` of a description with classes and preprocessing, but without the structure of the network."""


class OwnClassifier(Classifier):
    """Any module that maps float32 [N, 3, H, W] to logits [N, K], with the interface of this project's models.

    It can be trained by ``train_one_epoch``, evaluated by ``evaluate``, used by ``Predictor`` and saved by
    ``save_checkpoint``, and is loaded by::

        load(path, build=lambda saved: OwnClassifier.from_saved(MyNetwork(), saved))

    Its only part is "backbone" (your whole network), which is not divided further.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: ClassMap | Sequence[str],
        *,
        image_size: int,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Args:
        network: your module.
        classes: the K classes, in the order of its outputs.
        image_size: side in pixels of its square input images; the shorter side of an image is resized to it, and
            the centre is cropped.
        mean, std: of each channel in [0, 1]; the network gets ``(pixel / 255 - mean) / std``.
        value_range: lowest and highest value of images with more than 8 bits per channel, which become 0 and 255.
        """
        class_map = classes if isinstance(classes, ClassMap) else ClassMap.from_names(list(classes))
        preprocessing = Preprocessing(
            image_size, 0, crop=image_size, mean=mean, std=std, value_range=checked_range(value_range)
        )
        self._wrap(network, ModelDescription(OWN, "classify", class_map, preprocessing, "batch", 1e-5))

    @classmethod
    def from_saved(cls, network: nn.Module, saved: Mapping[str, Any]) -> OwnClassifier:
        """Wrap a newly built ``network``, with the classes and the preprocessing of a checkpoint.

        Raises:
            DataError: the checkpoint contains another kind of model.
        """
        if saved.get("arch") != OWN:
            raise DataError(f"the checkpoint contains {saved.get('arch')!r}, not a custom module; use load(path)")
        model = cls.__new__(cls)
        model._wrap(network, ModelDescription.from_dict(dict(saved)))
        return model

    def check_norms_can_learn(self, images: Sequence[Tensor]) -> None:
        """Check nothing: whether a batch of one image is large enough depends on your network."""

    def _pooled(self, batch: Tensor) -> Tensor:
        logits = self.get_submodule("network")(batch)
        expected = [len(batch), len(self.description.class_map)]
        if not isinstance(logits, Tensor) or list(logits.shape) != expected:
            actual = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise DataError(
                f"your network returns {actual} for {len(batch)} images; logits {expected} are required, for "
                f"{expected[1]} classes"
            )
        return logits

    def _wrap(self, network: nn.Module, description: ModelDescription) -> None:
        spec = BackboneSpec(
            build=type(network),
            imagenet=None,
            norm_eps=description.norm_eps,
            stages=((), (), ("network",)),
            prefix="",
            head="classifier",
            levels={},
            strides=(),
        )
        Classifier.__init__(self, nn.ModuleDict({"network": network, "classifier": nn.Identity()}), spec, description)
