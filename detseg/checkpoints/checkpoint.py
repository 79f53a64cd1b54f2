"""Save and load checkpoints: one safetensors file with a JSON header and a checksum, written atomically. No pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from detseg.checkpoints.tensor_file import read_tensor_file, write_tensor_file
from detseg.engine.ema import Ema
from detseg.engine.optim import load_optimizer_tensors, optimizer_tensors
from detseg.engine.precision import Precision
from detseg.engine.train import EpochTotals
from detseg.errors import DataError, in_file
from detseg.models.build import Model, ModelDescription, build_model
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import counted


@dataclass(frozen=True)
class Position:
    """Progress of a run.

    Attributes:
        epoch: completed epochs.
        step: optimizer updates in the whole run, including skipped ones.
        micro_batches: batches of the current epoch already consumed; 0 between epochs.
        best: best validation metric so far (without a validation split, the negative training loss); None before it.
        best_epoch: epoch (from 0) of the best metric.
        epochs_without_improvement: epochs since then.
        skipped: number of consecutive updates skipped because a number was not finite.
    """

    epoch: int = 0
    step: int = 0
    micro_batches: int = 0
    best: float | None = None
    best_epoch: int = -1
    epochs_without_improvement: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read from its file.

    Attributes:
        path: path of the file.
        model: description from which the model is rebuilt; a user-defined dict for a user-defined module.
        weights: state dict of the model.
        optimizer: state by ``"<parameter>|<state>"``; empty in a checkpoint that is only for inference.
        position: progress of the run.
        metrics: validation metrics of these weights; may be empty.
        versions: versions of the libraries that wrote the file.
        channels_last: whether the model was in channels-last memory format (the tensors of the file are contiguous).
            The format determines the order of sums, so a reloaded model gets the same one.
        ema: state dict of the moving average; empty without one.
        ema_updates: number of updates averaged.
        totals: totals of the current epoch up to ``position.micro_batches``, one for each process.
        scaler: state of the float16 loss scaler; empty without it.
        data: fingerprint of the training data; see ``annotations/fingerprint.py``. May be empty.
        threads: number of threads of torch that trained it, on which the last bits of sums depend; 0 if unknown.
    """

    path: Path
    model: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    position: Position = field(default_factory=Position)
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    channels_last: bool = False
    ema: dict[str, Tensor] = field(default_factory=dict)
    ema_updates: int = 0
    totals: tuple[EpochTotals, ...] = (EpochTotals(),)
    scaler: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    threads: int = 0

    def __repr__(self) -> str:
        state = "with" if self.optimizer else "without"
        return (
            f"Checkpoint({str(self.path)!r}, {self.model.get('arch', 'own module')}, epoch {self.position.epoch}, "
            f"{counted(len(self.weights), 'tensor')}, {state} optimizer state)"
        )


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    description: Mapping[str, Any] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    position: Position | None = None,
    metrics: Mapping[str, Any] | None = None,
    half: bool = False,
    ema: Ema | None = None,
    totals: Sequence[EpochTotals] = (EpochTotals(),),
    precision: Precision | None = None,
    data: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Write ``model`` and the state needed to resume the run to ``path``, atomically.

    Args:
        description: description from which the model is rebuilt; default: ``model.description`` of this project's
            models. For your own module pass any JSON-able dict that your ``build`` function accepts.
        optimizer: saved by parameter name; None for a checkpoint that is only for inference.
        half: save the weights as float16: half the file size, for pretrained weights.
        ema, totals, precision, data: as in :class:`Checkpoint`.
        tensors: additional tensors, stored under their own names.
        before_replacing: called when the new file is on disk next to the old one, just before it replaces it.

    The learning-rate schedule has no state: it is a function of ``position.step``.
    """
    weights = {name: _to_half(tensor) if half else tensor for name, tensor in model.state_dict().items()}
    named = {f"model.{name}": tensor for name, tensor in weights.items()} | dict(tensors or {})
    if optimizer is not None:
        named |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(model, optimizer).items()}
    if ema is not None:
        named |= {f"ema.{name}": tensor for name, tensor in ema.weights.items()}
    if description is None:
        description = model.description.to_dict() if hasattr(model, "description") else {}  # type: ignore[operator,union-attr]
    header = {
        "model": dict(description),
        "position": asdict(position or Position()),
        "metrics": dict(metrics or {}),
        "channels_last": any(_is_channels_last(tensor) for tensor in model.state_dict().values()),
        "versions": {"torch": torch.__version__},
        "ema_updates": 0 if ema is None else ema.updates,
        "totals": [asdict(process_totals) for process_totals in totals],
        "scaler": {} if precision is None else precision.state(),
        "data": dict(data or {}),
        **({} if optimizer is None else {"threads": torch.get_num_threads()}),
    }
    write_tensor_file(path, header, named, before_replacing=before_replacing)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint onto the CPU. Nothing in the file is executed.

    Raises:
        OSError: the file is missing or cannot be opened.
        DataError: it is not a checkpoint of this project, or has a newer schema; :class:`CorruptFileError` if it is
            corrupt.
    """
    header, tensors = read_tensor_file(path)
    with in_file(path):
        return _checkpoint(Path(path), header, tensors)


def _checkpoint(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Checkpoint:
    header = _upgraded_header(header)
    totals = msgspec.convert(header["totals"], tuple[EpochTotals, ...])
    if not totals:
        raise DataError("the list of totals is empty; it needs one entry for each process")
    return Checkpoint(
        path=path,
        model=header["model"],
        weights=_with_prefix("model.", tensors),
        optimizer=_with_prefix("optimizer.", tensors),
        position=msgspec.convert(header["position"], Position),
        metrics=header["metrics"],
        versions=header["versions"],
        channels_last=header["channels_last"],
        ema=_with_prefix("ema.", tensors),
        ema_updates=header.get("ema_updates", 0),
        totals=totals,
        scaler=header.get("scaler", {}),
        data=header.get("data", {}),
        threads=int(header.get("threads", 0)),
    )


def _upgraded_header(header: dict[str, Any]) -> dict[str, Any]:
    """A header of any schema, with the key names of schema 3."""
    if header["schema"] >= 3:
        return header
    position = {"epochs_without_improvement" if name == "waited" else name: n for name, n in header["position"].items()}
    return {**header, "position": position, "totals": header.get("sums", [{}])}


def load(path: str | os.PathLike[str], build: Callable[[dict[str, Any]], nn.Module] | None = None) -> nn.Module:
    """Load the model of a checkpoint, in eval mode on the CPU.

    Args:
        path: checkpoint file, or a run folder (its best.safetensors is loaded).
        build: for your own module: called with the saved description, returns the module to load the weights into.
    """
    path = Path(path)
    checkpoint = load_checkpoint(RunFolder(path).best if path.is_dir() else path)
    model = build(checkpoint.model) if build else described_model(checkpoint)
    with in_file(checkpoint.path):
        model.load_state_dict(checkpoint.weights)
    if checkpoint.channels_last:
        model.to(memory_format=torch.channels_last)
    return model.eval()


def described_model(checkpoint: Checkpoint) -> Model:
    """Build the model that a checkpoint describes, randomly initialized.

    Raises:
        DataError: the weights do not match this model; checked before memory for the model is allocated.
    """
    with in_file(checkpoint.path):
        description = ModelDescription.from_dict(checkpoint.model)
        with torch.device("meta"):
            model_shapes = {name: tensor.shape for name, tensor in build_model(description).state_dict().items()}
        file_shapes = {name: tensor.shape for name, tensor in checkpoint.weights.items()}
        names = {**model_shapes, **file_shapes}
        mismatched = [name for name in names if model_shapes.get(name) != file_shapes.get(name)]
        if mismatched:
            raise DataError(f"the weights do not match the model {description.arch}: {mismatched[0]}; use another file")
        return build_model(description)


def restore(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    ema: Ema | None = None,
    precision: Precision | None = None,
) -> None:
    """Load the saved state into a model, optimizer, EMA and precision that were created with the options of the run."""
    with in_file(checkpoint.path):
        model.load_state_dict(checkpoint.weights)
        load_optimizer_tensors(model, optimizer, checkpoint.optimizer)
        if ema is not None:
            ema.restore(checkpoint.ema or checkpoint.weights, checkpoint.ema_updates)
        if precision is not None:
            precision.restore(checkpoint.scaler)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _to_half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor
