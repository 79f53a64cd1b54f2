"""What :class:`~detseg.inference.predictor.Predictor` needs of the program that runs a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detseg.classes import ClassMap, LabelField
from detseg.keypoints import KeypointSchema
from detseg.preprocess import Preprocessing
from detseg.structures import ClassPrediction, FieldPredictions, RawPrediction
from detseg.tasks import Task

NetworkOutput = RawPrediction | ClassPrediction | FieldPredictions


class Described(Protocol):
    """What is known of a network: ``ModelDescription`` of a checkpoint, ``ExportedModel`` of an exported file."""

    @property
    def arch(self) -> str: ...
    @property
    def task(self) -> Task: ...
    @property
    def class_map(self) -> ClassMap: ...
    @property
    def label_fields(self) -> tuple[LabelField, ...]: ...
    @property
    def keypoints(self) -> KeypointSchema | None: ...
    @property
    def preprocessing(self) -> Preprocessing: ...


class Backend(Protocol):
    """A network on a device, in eval mode.

    Attributes:
        device: that it runs on: a torch.device, or a name.
    """

    device: Any

    @property
    def description(self) -> Described: ...

    def __call__(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[NetworkOutput]:
        """The output for each image; it does not depend on the other images.

        Args:
            images: uint8 [h, w, 3] RGB, each resized and cropped by the preprocessing of the network.
        """
