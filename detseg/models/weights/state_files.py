"""State dicts from files: torch's, safetensors, and this project's checkpoints. Nothing in a file is executed."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from detseg.errors import DataError, in_file
from detseg.models.description import ModelDescription
from detseg.models.weights.bundled import BUNDLED, bundled_path

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts put the state dict of the model."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The model's tensors of a file, on the CPU, in the file's dtypes.

    Args:
        path: .pth or .pt with a state dict, bare or under "model" or "state_dict"; .safetensors, plain or a checkpoint
            of this project; a run folder, whose best.safetensors is taken; or "bundled". "module." before all names
            (DataParallel) is dropped.

    Raises:
        OSError: there is no such file, or it cannot be opened.
        DataError: it is corrupt, holds more than tensors, or none at all.
    """
    path = _find(path)
    state = _read_safetensors(path)[1] if path.suffix == ".safetensors" else _read_pickle(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not state:
        raise DataError(f"{path}: holds no tensors; give a state dict")
    return state


def read_description(path: str | os.PathLike[str]) -> ModelDescription | None:
    """The description in a checkpoint of this project; None if the file is something else."""
    path = _find(path)
    if path.suffix != ".safetensors":
        return None
    header = _read_safetensors(path, tensors=False)[0]
    with in_file(path):
        return None if header is None else ModelDescription.from_dict(header["model"])


def _find(path: str | os.PathLike[str]) -> Path:
    if path == BUNDLED:
        return bundled_path()
    path = Path(path)
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"weights {path}: no such file; give coco, imagenet, bundled, none, a file or a run folder"
        )
    return path


def _read_safetensors(path: Path, tensors: bool = True) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """This project's header (None in a plain file) and the model's tensors."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("detseg")
            prefix = "" if text is None else "model."
            names = [name for name in file.keys() if name.startswith(prefix)] if tensors else []  # noqa: SIM118
            state = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
            return (None if text is None else json.loads(text, parse_constant=no_number)), state
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: corrupt, or not a safetensors file ({error}); fetch it again") from error


def no_number(name: str) -> float:
    """For JSON's NaN and Infinity, which nothing here writes."""
    raise ValueError(f"{name} is no number")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if _is_packed(path):
        raise DataError(f"{path}: a compressed archive, which torch.save does not write; unpack it and save it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: corrupt, or holds more than tensors, which is not read because a pickle can run code ({reason}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error
    except OSError:
        raise
    except Exception as error:  # corrupt bytes raise whatever they happen to spell
        raise DataError(f"{path}: corrupt, or not a file of torch.save ({error}); fetch it again") from error
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; give a state dict (name -> tensor)")
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise DataError(
            f"{path}: {strange[0]!r} is no tensor; give a state dict, bare or under {' or '.join(WRAPPERS)}"
        )
    return dict(content)


def _is_packed(path: Path) -> bool:
    """Whether a zip archive has members that become larger than they are in the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # torch will say what it is
