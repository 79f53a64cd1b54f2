"""Predict images with a trained model, including preprocessing and postprocessing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from detseg.classes import ClassMap, LabelField
from detseg.errors import DataError, reason_of
from detseg.export.exported_file import is_exported
from detseg.images import EncodedImage
from detseg.inference.backend import Backend, NetworkOutput
from detseg.inference.chain import check_chain, classify_objects
from detseg.inference.flip import merged, mirrored
from detseg.keypoints import KeypointSchema
from detseg.orientation import orient_image, upright_hw
from detseg.pixels import to_pixels
from detseg.postprocess import finish
from detseg.preprocess import Geometry, Preprocessing
from detseg.short_text import listed, one_line, with_classes
from detseg.structures import ClassPrediction, FieldPredictions, Prediction, RawPrediction
from detseg.tile_merge import merge_views
from detseg.tiling import changed_tiling

if TYPE_CHECKING:  # exported files need no torch
    import torch

Image: TypeAlias = "str | os.PathLike[str] | bytes | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor"
"""A file, the bytes of a file, a PIL image, or upright RGB pixels: an array [H, W, 3] or a tensor [3, H, W], uint8 or
float in [0, 1]; if the model has a value range, values of other types, which are scaled by it, as floats then are."""

TILES = 4
"""Tiles of an image that are in the network together."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that is ready for the network.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, the network's input; with tiles, the resized image that they are cut from.
        geometry: of the input relative to the original image.
        full: uint8 [H, W, 3] RGB, the upright original, for a chained classifier; None without one.
    """

    pixels: npt.NDArray[np.uint8]
    geometry: Geometry
    full: npt.NDArray[np.uint8] | None = None


class Predictor:
    """``Predictor(run)(image)`` returns a :class:`Prediction`; for a classifier a :class:`ClassPrediction`, or with
    several label fields :class:`FieldPredictions`.

    Args:
        run: run folder (its best checkpoint is loaded), checkpoint file, a file that ``detseg export`` wrote (it runs
            without torch), or a detseg model, which is set to eval mode.
        device: "cuda", "cpu", ...; None for CUDA if available, else the CPU.
        then: a classifier (a run, an exported file or a ``Predictor``) that classifies the pixels of each detection in
            the original image: ``object_classes`` of the predictions.
        flip: average the outputs for the image and its mirror image (:mod:`detseg.inference.flip`), in twice the time.
        tile: side in pixels of the tiles that a detector cuts images into, whose predictions are merged; 0 for whole
            images; None as the model was trained.
        overlap: share of its side that a tile has in common with the next one, and
        whole_image: whether the whole image, resized, is predicted too, for objects that no tile shows whole; None as
            the model was trained, else 0.2 and true.

    Raises:
        DataError: ``then`` is no classifier, or ``run`` finds no objects; tiles for a classifier; or one of them cannot
            be opened.

    Attributes:
        device: a torch.device; of an exported file its name.
        class_map: the K classes; ``class_map.name_of(label)`` returns a class name.
        label_fields: the label fields of a classifier with several classes per image; else empty.
        task: "detect", "segment", "keypoints" or "classify".
        keypoints: the keypoint schema of the model; None without keypoints.
        then: the ``Predictor`` of the chained classifier; None without one.
        flip: as the argument.
        preprocessing: of the model, with the tiling that is used.
    """

    def __init__(
        self,
        run: str | os.PathLike[str] | torch.nn.Module,
        device: str | torch.device | None = None,
        *,
        then: str | os.PathLike[str] | torch.nn.Module | Predictor | None = None,
        flip: bool = False,
        tile: int | None = None,
        overlap: float | None = None,
        whole_image: bool | None = None,
    ) -> None:
        self.backend = _open(run, device)
        self.device = self.backend.device
        description = self.backend.description
        self.class_map: ClassMap = description.class_map
        self.label_fields: tuple[LabelField, ...] = description.label_fields
        self.task: str = description.task
        self.keypoints: KeypointSchema | None = description.keypoints
        self.preprocessing: Preprocessing = with_tiles(description.preprocessing, tile, overlap, whole_image)
        self.flip = flip
        self.then = then if then is None or isinstance(then, Predictor) else Predictor(then, device)
        if self.then is not None:
            check_chain(self.task, self.then)
        self._warned = False

    @property
    def model(self) -> torch.nn.Module:
        """The network of a checkpoint; DataError for an exported file, whose network is no module of torch."""
        model: torch.nn.Module | None = getattr(self.backend, "model", None)
        if model is None:
            raise DataError("an exported file has no torch model; open the run that it was exported from")
        return model

    def __repr__(self) -> str:
        description = self.backend.description
        fields = f", label fields: {listed([field.name for field in self.label_fields], 60)}" * bool(self.label_fields)
        model = f"{description.arch}, {self.task}"
        chained = "" if self.then is None else f"; then {self.then!r}"
        return f"Predictor({model}; {with_classes(self.class_map.names)}{fields}; device {self.device}{chained})"

    def __call__(self, image: Image) -> Prediction | ClassPrediction | FieldPredictions:
        """Predict one image, in pixels of the upright original image.

        All kinds of images give the same prediction, with one exception: a JPEG file that is much larger than the
        network input is decoded at a reduced size (not with a chained classifier, which needs all its pixels), which
        is faster and differs slightly from its full pixels. A PIL
        image is rotated upright by its EXIF orientation, as a file is.

        Raises:
            OSError: the file is missing.
            DataError: it is not an image, is corrupt, or is too large; an array or tensor of another shape or dtype,
                or with floats outside [0, 1] if the model has no value range; several images (see :meth:`many`).
        """
        return self.many([image])[0]

    def many(self, images: Sequence[Image]) -> list[Prediction | ClassPrediction | FieldPredictions]:
        """Predict several images as one batch. The result of an image does not depend on the other images."""
        return self.run([self.load(image) for image in images])

    def run(self, images: Sequence[LoadedImage]) -> list[Prediction | ClassPrediction | FieldPredictions]:
        """Predict images of :meth:`load` as one batch, as :meth:`many` does."""
        if not images:
            return []
        if self.preprocessing.tiling is not None:
            return [self._merged(image) for image in images]
        outputs = self._outputs([image.pixels for image in images])
        return [
            self._with_classes(finish(output, image.geometry), image) if isinstance(output, RawPrediction) else output
            for output, image in zip(outputs, images, strict=True)
        ]

    def _outputs(self, inputs: Sequence[npt.NDArray[np.uint8]]) -> list[NetworkOutput]:
        """The output for each input of the network."""
        outputs = self.backend(inputs)
        if not self.flip:
            return outputs
        others = self.backend([mirrored(pixels) for pixels in inputs])
        return [
            merged(output, other, pixels.shape[1], self.backend.description)
            for output, other, pixels in zip(outputs, others, inputs, strict=True)
        ]

    def _with_classes(self, prediction: Prediction, image: LoadedImage) -> Prediction:
        """``prediction`` with the classes of the chained classifier, if there is one."""
        if self.then is None:
            return prediction
        assert image.full is not None, "images are loaded by this predictor"
        return classify_objects(prediction, image.full, self.then)

    def _merged(self, image: LoadedImage) -> Prediction:
        """The prediction of an image from those of its tiles; a few tiles at a time are in the network."""
        geometry, parts = image.geometry, []
        views = self.preprocessing.views(geometry.original_hw, geometry.orientation)
        for begin in range(0, len(views), TILES):
            batch = views[begin : begin + TILES]
            outputs = self._outputs([self.preprocessing.apply(image.pixels, view) for view in batch])
            for output, view in zip(outputs, batch, strict=True):
                assert isinstance(output, RawPrediction)  # classifiers have no tiles
                parts.append(finish(output, view))
        return self._with_classes(merge_views(views, parts), image)

    def prepare(self, image: Image) -> tuple[npt.NDArray[np.uint8], Geometry]:
        """Network input uint8 [h, w, 3] of one image, and its geometry relative to the original image; with tiles, the
        resized image that they are cut from."""
        loaded = self.load(image)
        return loaded.pixels, loaded.geometry

    def load(self, image: Image) -> LoadedImage:
        """Decode and resize one image for :meth:`run`; several threads may do so at once. Errors of a call."""
        value_range = self.preprocessing.value_range
        full = None
        if not isinstance(image, (str, os.PathLike, bytes)):
            pixels, orientation = to_pixels(image, "image", value_range)
            pixels = orient_image(pixels, orientation)
            geometry = self.preprocessing.geometry((pixels.shape[0], pixels.shape[1]), orientation)
            if self.then is not None:
                other = self.then.preprocessing.value_range
                full = pixels if other == value_range else orient_image(*to_pixels(image, "image", other))
            return LoadedImage(self.preprocessing.apply(pixels, geometry), geometry, full)
        name = "image" if isinstance(image, bytes) else Path(image).name
        encoded = EncodedImage(image, name=name)
        size_hw = upright_hw(encoded.header.size_hw, encoded.header.orientation)
        geometry = self.preprocessing.geometry(size_hw, encoded.header.orientation)
        pixels = encoded.decode(min_hw=None if self.then else geometry.resized_hw, value_range=value_range)
        note = encoded.note or encoded.damage
        if self.then is not None:
            other = self.then.preprocessing.value_range
            full = pixels if other == value_range or not encoded.is_deep else encoded.decode(value_range=other)
        if note and not self._warned:
            self._warned = True
            warnings.warn(f"{note} (reported for the first such image only)", stacklevel=2)
        return LoadedImage(self.preprocessing.apply(pixels, geometry), geometry, full)


def _open(run: str | os.PathLike[str] | torch.nn.Module, device: str | torch.device | None) -> Backend:
    """The network of ``run``, with what runs it."""
    if isinstance(run, (str, os.PathLike)) and is_exported(run):
        from detseg.inference.onnx_backend import OnnxBackend

        return OnnxBackend(run, None if device is None else str(device))
    from detseg.inference.torch_backend import TorchBackend

    return TorchBackend(run, pick_device(device))


def with_tiles(
    preprocessing: Preprocessing, tile: int | None, overlap: float | None, whole_image: bool | None
) -> Preprocessing:
    """``preprocessing`` with the changes of its tiling that are not None; tile 0: none.

    Raises:
        DataError: tiles for a classifier; a change of tiles, but there are none.
    """
    if tile and preprocessing.crop:
        raise DataError(f"--tile {tile}: a classifier sees whole images; omit it")
    return replace(preprocessing, tiling=changed_tiling(preprocessing.tiling, tile, overlap, whole_image))


def pick_device(device: str | torch.device | None) -> torch.device:
    """``device``; if None, CUDA if available, else the CPU. DataError if the device is not available."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names of devices that no longer exist
            selected = torch.device(device)
        torch.zeros(1, device=selected).item()  # the device "meta" has no values
    except Exception as error:  # torch raises many types, some when it imports the module of a device
        if str(device).isdecimal():
            raise DataError(f"device {str(device)!r} does not exist; did you mean cuda:{device}?") from error
        reason = one_line(reason_of(error), 120)
        raise DataError(f"device {str(device)!r} is not available ({reason}); use cpu or omit the option") from error
    return selected
