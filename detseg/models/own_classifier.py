"""A user's own network as a classifier of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.models.backbones import BackboneSpec
from detseg.models.classifier import Classifier
from detseg.models.description import ModelDescription
from detseg.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

OWN = "own"
"""The ``arch`` of a description that tells classes and preprocessing, but not how the network is built."""


class OwnClassifier(Classifier):
    """Any module that takes float32 [N, 3, H, W] and gives logits [N, K], under the contract of this project's models.

    So it can be trained by ``train_one_epoch``, scored by ``evaluate``, used by ``Predictor`` and saved by
    ``save_checkpoint``, and comes back by::

        load(path, build=lambda saved: OwnClassifier.from_saved(MyNetwork(), saved))

    Its parts are "backbone" (your whole network) and none else; nothing of it is taken apart.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: ClassMap | Sequence[str],
        *,
        image_size: int,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        """Args:
        network: yours.
        classes: the K classes, in the order of its outputs.
        image_size: side in pixels of the square images that it takes; the shorter side of an image is brought to
            it, the rest is cut off left and right, or above and below.
        mean, std: of each channel in [0, 1]; it is given ``(pixel / 255 - mean) / std``.
        """
        class_map = classes if isinstance(classes, ClassMap) else ClassMap.from_names(list(classes))
        preprocessing = Preprocessing(image_size, 0, crop=image_size, mean=mean, std=std)
        self._take(network, ModelDescription(OWN, "classify", class_map, preprocessing, "batch", 1e-5))

    @classmethod
    def from_saved(cls, network: nn.Module, saved: Mapping[str, Any]) -> OwnClassifier:
        """Around ``network`` as built anew, with the classes and the preprocessing of a checkpoint.

        Raises:
            DataError: the checkpoint is of another kind of model.
        """
        if saved.get("arch") != OWN:
            raise DataError(f"the checkpoint holds {saved.get('arch')!r}, no module of your own; use load(path) alone")
        model = cls.__new__(cls)
        model._take(network, ModelDescription.from_dict(dict(saved)))
        return model

    def check_norms_can_learn(self, images: Sequence[Tensor]) -> None:
        """Whether a batch of one image is enough is your network's to say."""

    def _pooled(self, batch: Tensor) -> Tensor:
        logits = self.get_submodule("network")(batch)
        wanted = [len(batch), len(self.description.class_map)]
        if not isinstance(logits, Tensor) or list(logits.shape) != wanted:
            found = f"shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise DataError(
                f"your network gives {found} for {len(batch)} images; logits {wanted} are needed, for "
                f"{wanted[1]} classes"
            )
        return logits

    def _take(self, network: nn.Module, description: ModelDescription) -> None:
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
