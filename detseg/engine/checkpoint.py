"""Checkpoints: one safetensors file, JSON in its header, written whole or not at all. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from detseg.engine.optim import load_optimizer_tensors, optimizer_tensors
from detseg.errors import DataError
from detseg.files import atomic_write
from detseg.models.build import ModelDescription, build_model

SCHEMA = 1


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Attributes:
        epoch: epochs completed.
        step: optimizer updates done in the whole run.
        micro_batches: batches of the current epoch already consumed; 0 between epochs.
        best: best validation number so far; None before the first.
        best_epoch: epoch (from 0) that gave it.
        waited: epochs since then.
    """

    epoch: int = 0
    step: int = 0
    micro_batches: int = 0
    best: float | None = None
    best_epoch: int = -1
    waited: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from its file.

    Attributes:
        model: description that the model is rebuilt from; a user's own dict for a user's own module.
        weights: state dict of the model.
        optimizer: state by ``"<parameter>|<state>"``; empty in a checkpoint for use only.
        position: how far the run had come.
        metrics: validation metrics of these weights; may be empty.
        versions: library versions that wrote the file.
        channels_last: whether the model computed in that memory format (the file's tensors are contiguous). It decides
            the order of sums, so a reloaded model is given the same.
    """

    model: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    channels_last: bool = False


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    description: Mapping[str, Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    position: Position | None = None,
    metrics: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write ``model`` (and what a resumed run needs) to ``path``, atomically.

    Args:
        description: what the model is rebuilt from; by default ``model.description`` of this project's models. For a
            module of your own pass any JSON-able dict that your ``build`` function understands.
        optimizer: saved by parameter name; leave out for a checkpoint that is only used.
        half: weights as float16, for a file of half the size that others start from.

    The learning-rate schedule needs no state of its own: it is a function of ``position.step``.
    """
    weights = {name: _halved(tensor) if half else tensor for name, tensor in model.state_dict().items()}
    tensors = {f"model.{name}": tensor for name, tensor in weights.items()}
    if optimizer is not None:
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(model, optimizer).items()}
    if description is None:
        description = model.description.to_dict() if hasattr(model, "description") else {}  # type: ignore[operator,union-attr]
    header = {
        "schema": SCHEMA,
        "model": dict(description),
        "position": asdict(position or Position()),
        "metrics": dict(metrics or {}),
        "channels_last": any(_is_channels_last(tensor) for tensor in model.state_dict().values()),
        "versions": {"torch": torch.__version__},
    }
    # safetensors refuses views and shared storage; a copy has neither
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(header, allow_nan=False)
    with atomic_write(path) as file:
        file.write(safetensors.torch.save(plain, metadata={"detseg": text}))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint onto the CPU. Nothing in the file is executed.

    Raises:
        OSError: the file is missing or cannot be opened.
        DataError: it is not a checkpoint of this project, or damaged, or of a newer schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run writes best.safetensors and last.safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("detseg", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: damaged, or not a safetensors file ({error}); use another checkpoint") from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: a safetensors file without this project's header; pass it as --weights instead")
    if header.get("schema") != SCHEMA:
        raise DataError(f"{path}: schema {header.get('schema')} is not known (this version knows {SCHEMA}); upgrade")
    return Checkpoint(
        model=header["model"],
        weights=_under("model.", tensors),
        optimizer=_under("optimizer.", tensors),
        position=Position(**header["position"]),
        metrics=header["metrics"],
        versions=header["versions"],
        channels_last=header["channels_last"],
    )


def load(path: str | os.PathLike[str], build: Callable[[dict[str, Any]], nn.Module] | None = None) -> nn.Module:
    """The model of a checkpoint, in eval mode on the CPU.

    Args:
        path: checkpoint file, or a run folder (its best.safetensors is taken).
        build: for a module of your own: called with the saved description, returns the module to fill.
    """
    path = Path(path)
    checkpoint = load_checkpoint(path / "best.safetensors" if path.is_dir() else path)
    model = build(checkpoint.model) if build else build_model(ModelDescription.from_dict(checkpoint.model))
    model.load_state_dict(checkpoint.weights)
    if checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.eval()


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the saved weights and optimizer state into a model and an optimizer built as the run built them."""
    model.load_state_dict(checkpoint.weights)
    load_optimizer_tensors(model, optimizer, checkpoint.optimizer)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _halved(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor
