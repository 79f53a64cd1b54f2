"""Predict images with a trained model, including preprocessing and postprocessing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detseg.checkpoints.checkpoint import load
from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError
from detseg.images import EncodedImage
from detseg.keypoints import KeypointSchema
from detseg.orientation import upright_hw
from detseg.pixel_values import to_8_bits
from detseg.postprocess import finish
from detseg.preprocess import Geometry, Preprocessing
from detseg.structures import ClassPrediction, FieldPredictions, Prediction, RawPrediction

Image = str | os.PathLike[str] | bytes | npt.NDArray[Any]
"""A file, the bytes of a file, or upright uint8 RGB pixels [H, W, 3]; if the model has a value range, also grey or RGB
values of another type, [H, W] or [H, W, 3], which are scaled by it."""


class Predictor:
    """``Predictor(run)(image)`` returns a :class:`Prediction`; for a classifier a :class:`ClassPrediction`, or with
    several label fields :class:`FieldPredictions`.

    Args:
        run: run folder (its best checkpoint is loaded), checkpoint file, or a detseg model, which is set to eval mode.
        device: "cuda", "cpu", ...; None for CUDA if available, else the CPU.

    Attributes:
        class_map: the K classes; ``class_map.name_of(label)`` returns a class name.
        label_fields: the label fields of a classifier with several classes per image; else empty.
        task: "detect", "segment", "keypoints" or "classify".
        keypoints: the keypoint schema of the model; None without keypoints.
    """

    def __init__(self, run: str | os.PathLike[str] | torch.nn.Module, device: str | torch.device | None = None) -> None:
        self.device = pick_device(device)
        self.model = (run.eval() if isinstance(run, torch.nn.Module) else load(run)).to(self.device)
        self.class_map: ClassMap = self.model.description.class_map  # type: ignore[union-attr,assignment]
        self.label_fields: tuple[LabelField, ...] = self.model.description.label_fields  # type: ignore[union-attr,assignment]
        self.task: str = self.model.description.task  # type: ignore[union-attr,assignment]
        self.keypoints: KeypointSchema | None = self.model.description.keypoints  # type: ignore[union-attr,assignment]
        self._warned = False
        self.preprocessing: Preprocessing = self.model.description.preprocessing  # type: ignore[union-attr,assignment]

    def __call__(self, image: Image) -> Prediction | ClassPrediction | FieldPredictions:
        """Predict one image, in pixels of the upright original image.

        Raises:
            OSError: the file is missing.
            DataError: it is not an image, is corrupt, or is too large.
        """
        return self.many([image])[0]

    def many(self, images: Sequence[Image]) -> list[Prediction | ClassPrediction | FieldPredictions]:
        """Predict several images as one batch. The result of an image does not depend on the other images."""
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
        """Network input uint8 [h, w, 3] of one image, and its geometry relative to the original image."""
        value_range = self.preprocessing.value_range
        if isinstance(image, np.ndarray):
            if value_range is not None and image.dtype != np.uint8 and image.dtype.kind in "iuf":
                image = to_8_bits(image, value_range)
                image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise DataError(
                    f"image of shape {image.shape} and type {image.dtype}: pass RGB pixels, uint8 [H, W, 3]; other "
                    "types need a model with a value range (train with --value-range)"
                )
            geometry = self.preprocessing.geometry((image.shape[0], image.shape[1]))
            return self.preprocessing.apply(image, geometry), geometry
        name = "image" if isinstance(image, bytes) else Path(image).name
        encoded = EncodedImage(image, name=name)
        size_hw = upright_hw(encoded.header.size_hw, encoded.header.orientation)
        geometry = self.preprocessing.geometry(size_hw, encoded.header.orientation)
        pixels = encoded.decode(min_hw=geometry.resized_hw, value_range=value_range)
        if encoded.note and not self._warned:
            self._warned = True
            warnings.warn(f"{encoded.note} (reported for the first such image only)", stacklevel=2)
        return self.preprocessing.apply(pixels, geometry), geometry


def pick_device(device: str | torch.device | None) -> torch.device:
    """``device``; if None, CUDA if available, else the CPU. DataError if the device is not available."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        selected = torch.device(device)
        torch.empty(0, device=selected)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device {str(device)!r} is not available ({error}); use cpu or omit the option") from error
    return selected
