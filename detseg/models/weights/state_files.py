"""Read state dicts from torch files, safetensors, and this project's checkpoints. No code in a file is executed."""

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
"""Keys under which training scripts save the state dict of the model."""


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the model's tensors of a file, on the CPU, in the file's dtypes.

    Args:
        path: .pth or .pt with a state dict, at the top level or under "model" or "state_dict"; .safetensors, with
            tensors only or a checkpoint of this project; a run folder, from which best.safetensors is used; or
            "bundled". A prefix "module." of all names (DataParallel) is removed.

    Raises:
        OSError: the file does not exist or cannot be opened.
        DataError: it is corrupt, contains other objects than tensors, or contains no tensors.
    """
    path = _resolve(path)
    state = _read_safetensors(path)[1] if path.suffix == ".safetensors" else _read_pickle(path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not state:
        raise DataError(f"{path}: contains no tensors; a state dict is required")
    return state


def read_description(path: str | os.PathLike[str]) -> ModelDescription | None:
    """Return the model description in a checkpoint of this project; None for other files."""
    path = _resolve(path)
    if path.suffix != ".safetensors":
        return None
    header = _read_safetensors(path, tensors=False)[0]
    with in_file(path):
        return None if header is None else ModelDescription.from_dict(header["model"])


def _resolve(path: str | os.PathLike[str]) -> Path:
    if path == BUNDLED:
        return bundled_path()
    path = Path(path)
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"weights {path}: no such file; use coco, imagenet, bundled, none, a file or a run folder"
        )
    return path


def _read_safetensors(path: Path, tensors: bool = True) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Return this project's header (None for files without it) and the model's tensors."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("detseg")
            prefix = "" if text is None else "model."
            names = [name for name in file.keys() if name.startswith(prefix)] if tensors else []  # noqa: SIM118
            state = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
            return (None if text is None else json.loads(text, parse_constant=reject_constant)), state
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: corrupt, or not a safetensors file ({error}); download it again") from error


def reject_constant(name: str) -> float:
    """Raise ValueError for NaN and Infinity in JSON, which this project never writes."""
    raise ValueError(f"{name} is not a valid number")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    if _is_compressed(path):
        raise DataError(f"{path}: a compressed archive, which torch.save never writes; extract it and save it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: corrupt, or contains other objects than tensors, which are not loaded because a pickle can run "
            f"code ({reason}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error
    except OSError:
        raise
    except Exception as error:  # corrupt bytes can raise any exception
        raise DataError(f"{path}: corrupt, or not a file written by torch.save ({error}); download it again") from error
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict):
        raise DataError(f"{path}: contains a {type(content).__name__}; a state dict (name -> tensor) is required")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise DataError(
            f"{path}: {others[0]!r} is not a tensor; a state dict is required, at the top level or under "
            f"{' or '.join(WRAPPERS)}"
        )
    return dict(content)


def _is_compressed(path: Path) -> bool:
    """Return whether the file is a zip archive with compressed members."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # torch.load reports what is wrong
