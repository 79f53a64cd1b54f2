"""Save and report a failed step: a batch whose loss was not finite, or running out of memory."""

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
from detseg.models.freeze import freeze
from detseg.models.frozen_features import FrozenFeatures, Image
from detseg.models.losses_in_eval_mode import losses_in_eval_mode
from detseg.old_names import freeze_level
from detseg.options.plan import Plan
from detseg.reports.table import align
from detseg.runtime.reporter import Reporter
from detseg.runtime.run_folder import RunFolder
from detseg.runtime.user_command import user_command


def write_failed_batch(folder: Path, model: torch.nn.Module, error: NotFinite, position: Position, seed: int) -> Path:
    """Write the model and the batch that was not finite, for :func:`replay`; returns the path of the file.

    The model has its weights before the step: with them the error can be reproduced image by image.
    """
    tensors: dict[str, Tensor] = {}
    levels: list[list[Any]] = []  # of cached features that replace images, one per image
    batch = error.batches[-1]
    for number, (image, target) in enumerate(zip(batch.images, batch.targets, strict=True)):
        if isinstance(image, FrozenFeatures):
            levels.append([image.level, *image.size_hw])
            tensors |= {f"batch.{number}.features.{name}": value for name, value in image.tensors().items()}
        else:
            tensors[f"batch.{number}.image"] = image
        for key, value in target.items():
            if isinstance(value, Tensor):
                tensors[f"batch.{number}.target.{key}"] = value
    path = RunFolder(folder).failed_batch
    metrics: dict[str, Any] = {"message": str(error), "seed": seed, "batch": batch.index, "levels": levels}
    save_checkpoint(path, model, position=position, metrics=metrics, tensors=tensors)
    return path


def report_failed_batch(
    folder: Path, model: torch.nn.Module, error: NotFinite, position: Position, seed: int, reporter: Reporter
) -> None:
    """Write the batch that was not finite, and report how to show its losses, or that there is no space for it."""
    if not folder.is_dir():
        return  # it was removed, and half a folder would be worse than none
    try:
        path = write_failed_batch(folder, model, error, position, seed)
    except OSError as problem:  # the batch is less important than the error itself
        reporter.warning(f"warning: the batch was not saved ({problem})")
    else:
        reporter.line(f"show the losses of the batch with: {user_command('train', '--replay', path)}")


def replay(path: str) -> list[str]:
    """Compute the losses of a saved batch image by image, to show which of them are not finite.

    Returns:
        Lines for the terminal.

    Raises:
        DataError: the file contains no such batch.
    """
    with in_file(path):
        return _replay(path, *read_tensor_file(path))


def _replay(path: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> list[str]:
    numbers = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("batch.")})
    if not numbers:
        raise DataError(f"{path}: contains no batch; --replay expects the not-finite.safetensors of a run")
    model = load(path)
    rows, names = [], []
    for number in numbers:
        prefix = f"batch.{number}.target."
        target = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        image = _image(number, header["metrics"], tensors)
        if isinstance(image, FrozenFeatures) and isinstance(model, FreezableModel):
            freeze(model, _required_freeze(image))
        with torch.no_grad(), torch.random.fork_rng([]), losses_in_eval_mode(model):
            torch.manual_seed(header["metrics"]["seed"])
            losses: dict[str, Tensor] = model([image], [target])
        names = list(losses)
        cells = [f"{value.item():.4g}" for value in losses.values()]
        values = torch.cat([tensor.flatten().float() for tensor in _pixels(image)])
        size = f"{image.shape[-1]} x {image.shape[-2]}"
        objects = str(len(target["boxes"])) if "boxes" in target else "-"
        value_range = f"{values.min():.4g} to {values.max():.4g}"
        rows.append([str(int(target.get("image_id", torch.tensor(-1)))), size, value_range, objects, *cells])
    return [header["metrics"]["message"], "", *align(rows, ["image_id", "size", "values", "objects", *names])]


def _image(number: int, saved: dict[str, Any], tensors: dict[str, Tensor]) -> Image:
    """Return an image of the batch, or the cached features that replaced it."""
    if not saved.get("levels"):
        return tensors[f"batch.{number}.image"]
    prefix = f"batch.{number}.features."
    level, height, width = saved["levels"][number]
    features = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return FrozenFeatures.from_tensors(freeze_level(level), (height, width), features)


def _required_freeze(features: FrozenFeatures) -> str:
    """Return the lowest freeze level with which a model accepts these features."""
    if features.proposals is not None:
        return "rpn"
    return "neck" if features.level == "neck" else "backbone"


def _pixels(image: Image) -> list[Tensor]:
    return list(image.maps.values()) if isinstance(image, FrozenFeatures) else [image]


def out_of_memory(error: BaseException, plan: Plan, train: AnnotationTable | None) -> DataError:
    """Return an error with batch size, image size and the image with the most objects."""
    largest = ""
    if train is not None and len(train):
        counts = train.instances_per_image()
        crowded = int(np.argmax(counts))
        largest = f"; the image with the most objects is {train[crowded].name} ({int(counts[crowded])})"
    pixels = plan.model.image_size
    batch = plan.training.batch_size
    size = f"image size {pixels}" if pixels else "the default image size"
    return DataError(
        f"out of memory with batch size {batch} and {size}{largest}. Lower --batch-size (with --accumulate "
        f"the steps stay the same), --image-size or --rois-per-image ({str(error).splitlines()[0]})"
    )
