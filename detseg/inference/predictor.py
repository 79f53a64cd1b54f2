"""A trained model and its preprocessing as one callable: image in, prediction out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from detseg.checkpoints.checkpoint import load
from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.keypoints import KeypointSchema
from detseg.orientation import upright_hw
from detseg.postprocess import finish
from detseg.preprocess import Geometry, Preprocessing
from detseg.structures import ClassPrediction, FieldPredictions, Prediction, RawPrediction

Image = str | os.PathLike[str] | bytes | npt.NDArray[np.uint8]
"""A file, the bytes of a file, or upright uint8 RGB pixels [H, W, 3]."""


class Predictor:
    """``Predictor(run)(image)`` gives a :class:`Prediction`, or a :class:`ClassPrediction` from a classifier
    (:class:`FieldPredictions` from one with several label fields).

    Args:
        run: run folder (its best checkpoint is taken), checkpoint file, or one of this project's models, which is put
            into eval mode.
        device: "cuda", "cpu", ...; None for CUDA if there is one.

    Attributes:
        class_map: the K classes; ``class_map.name_of(label)`` gives a name.
        label_fields: of a classifier that gives several classes an image; else empty.
        task: "detect", "segment", "keypoints" or "classify".
        keypoints: what the model's keypoints are; None if it finds none.
    """

    def __init__(self, run: str | os.PathLike[str] | torch.nn.Module, device: str | torch.device | None = None) -> None:
        self.device = pick_device(device)
        self.model = (run.eval() if isinstance(run, torch.nn.Module) else load(run)).to(self.device)
        self.class_map: ClassMap = self.model.description.class_map  # type: ignore[union-attr,assignment]
        self.label_fields: tuple[LabelField, ...] = self.model.description.label_fields  # type: ignore[union-attr,assignment]
        self.task: str = self.model.description.task  # type: ignore[union-attr,assignment]
        self.keypoints: KeypointSchema | None = self.model.description.keypoints  # type: ignore[union-attr,assignment]
        self.preprocessing: Preprocessing = self.model.description.preprocessing  # type: ignore[union-attr,assignment]

    def __call__(self, image: Image) -> Prediction | ClassPrediction | FieldPredictions:
        """Predict one image, in the pixels of the upright original.

        Raises:
            OSError: the file is missing.
            DataError: it is not an image, is corrupt, or is too large.
        """
        return self.many([image])[0]

    def many(self, images: Sequence[Image]) -> list[Prediction | ClassPrediction | FieldPredictions]:
        """Predict several images at once. No image changes the result of another."""
        if not len(images):
            return []
        prepared = [self.prepare(image) for image in images]
        tensors = [torch.from_numpy(pixels).permute(2, 0, 1).to(self.device) for pixels, _ in prepared]
        with torch.inference_mode():
            outputs = self.model(tensors)
        return [
            finish(output, geometry) if isinstance(output, RawPrediction) else output
            for output, (_, geometry) in zip(outputs, prepared, strict=True)
        ]

    def prepare(self, image: Image) -> tuple[npt.NDArray[np.uint8], Geometry]:
        """Network input uint8 [h, w, 3] of one image, and where it lies in the original."""
        if isinstance(image, np.ndarray):
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise DataError(
                    f"image of shape {image.shape} and type {image.dtype}: pass RGB pixels, uint8 [H, W, 3]"
                )
            geometry = self.preprocessing.geometry((image.shape[0], image.shape[1]))
            return self.preprocessing.apply(image, geometry), geometry
        name = "image" if isinstance(image, bytes) else Path(image).name
        encoded = EncodedImage(image, name=name)
        size_hw = upright_hw(encoded.header.size_hw, encoded.header.orientation)
        geometry = self.preprocessing.geometry(size_hw, encoded.header.orientation)
        pixels = encoded.decode(min_hw=geometry.resized_hw)
        return self.preprocessing.apply(pixels, geometry), geometry


def pick_device(device: str | torch.device | None) -> torch.device:
    """``device``, or CUDA if there is one, or the CPU. DataError for a device that is not here."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {str(device)!r} cannot be used here ({error}); use cpu or leave it out") from error
    return chosen
