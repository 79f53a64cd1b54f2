"""What is kept and said when a step fails: the batch that was not finite, and what filled the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detseg.annotations import AnnotationTable
from detseg.checkpoints.checkpoint import Position, load, save_checkpoint
from detseg.checkpoints.tensor_file import read_tensor_file
from detseg.engine.nonfinite import NotFinite
from detseg.errors import DataError, in_file
from detseg.models.base import FreezableModel
from detseg.models.features import FrozenFeatures, Image
from detseg.models.freeze import freeze
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.old_names import freeze_level
from detseg.options import TrainConfig
from detseg.reports.table import align

FAULT = "not-finite.safetensors"


def write_fault(folder: Path, model: torch.nn.Module, fault: NotFinite, position: Position, seed: int) -> Path:
    """Write the model before the update and the batches of the update, for :func:`replay`; returns the file's path.

    The model is the one that met the batch: with it the fault can be seen again, and image by image.
    """
    tensors: dict[str, Tensor] = {}
    levels: list[list[Any]] = []  # of features in the place of images, one each
    batch = fault.batches[-1]
    for number, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        if isinstance(image, FrozenFeatures):
            levels.append([image.level, *image.size_hw])
            tensors |= {f"batch.{number}.features.{name}": value for name, value in image.tensors().items()}
        else:
            tensors[f"batch.{number}.image"] = image
        for key, value in target.items():
            if isinstance(value, Tensor):
                tensors[f"batch.{number}.target.{key}"] = value
    path = folder / FAULT
    metrics: dict[str, Any] = {"message": str(fault), "seed": seed, "batch": batch.index, "levels": levels}
    save_checkpoint(path, model, position=position, metrics=metrics, tensors=tensors)
    return path


def replay(path: str) -> list[str]:
    """The losses of a saved batch, image by image: which of them are not finite.

    Returns:
        Lines for the terminal.

    Raises:
        DataError: the file is no such batch.
    """
    with in_file(path):
        return _replay(path, *read_tensor_file(path))


def _replay(path: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> list[str]:
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("batch.")})
    if not numbers:
        raise DataError(f"{path}: holds no batch; --replay takes the {FAULT} of a run")
    model = load(path)
    rows, names = [], []
    for number in numbers:
        prefix = f"batch.{number}.target."
        target = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        image = _image(number, header["metrics"], tensors)
        if isinstance(image, FrozenFeatures) and isinstance(model, FreezableModel):
            freeze(model, _frozen_to(image))
        with torch.no_grad(), torch.random.fork_rng([]), losses_in_eval_mode(model):
            torch.manual_seed(header["metrics"]["seed"])
            losses: dict[str, Tensor] = model([image], [target])
        names = list(losses)
        cells = [f"{value.item():.4g}" for value in losses.values()]
        found = torch.cat([tensor.flatten().float() for tensor in _pixels(image)])
        size = f"{image.shape[-1]} x {image.shape[-2]}"
        objects = str(len(target["boxes"])) if "boxes" in target else "-"
        spread = f"{found.min():.4g} to {found.max():.4g}"
        rows.append([str(int(target.get("image_id", torch.tensor(-1)))), size, spread, objects, *cells])
    return [header["metrics"]["message"], "", *align(rows, ["image_id", "size", "values", "objects", *names])]


def _image(number: int, saved: dict[str, Any], tensors: dict[str, Tensor]) -> Image:
    """An image of the batch, or what stood for it."""
    if not saved.get("levels"):
        return tensors[f"batch.{number}.image"]
    prefix = f"batch.{number}.features."
    level, height, width = saved["levels"][number]
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FrozenFeatures.from_tensors(freeze_level(level), (height, width), own)


def _frozen_to(features: FrozenFeatures) -> str:
    """The level that a model must be frozen to, at least, to take these features."""
    if features.proposals is not None:
        return "rpn"
    return "neck" if features.level == "neck" else "backbone"


def _pixels(image: Image) -> list[Tensor]:
    return list(image.maps.values()) if isinstance(image, FrozenFeatures) else [image]


def out_of_memory(error: BaseException, config: TrainConfig, train: AnnotationTable) -> DataError:
    """What to say: batch and image size, and the image with the most objects."""
    counts = train.instances_per_image()
    crowded = int(np.argmax(counts)) if len(counts) else 0
    most = f"; the image with the most objects is {train[crowded].name} ({int(counts[crowded])})" if len(counts) else ""
    size = f"image size {config.image_size}" if config.image_size else "the usual image size"
    return DataError(
        f"out of memory with batch size {config.batch_size} and {size}{most}. Lower --batch-size (with --accumulate "
        f"the updates stay the same), --image-size or --rois-per-image ({str(error).splitlines()[0]})"
    )
