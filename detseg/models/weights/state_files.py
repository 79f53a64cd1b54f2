"""Read a weights file once: torch files, safetensors, this project's checkpoints. No code in a file is executed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detseg.errors import DataError, reason_of
from detseg.models.weights.bundled import BUNDLED, read_bundled
from detseg.models.weights.safetensors_file import parse_safetensors
from detseg.runtime.files import read_bytes
from detseg.runtime.run_folder import RunFolder
from detseg.short_text import one_line

WRAPPERS = ("model", "state_dict", "model_state_dict")
"""Keys under which training scripts save the state dict of the model."""


@dataclass(frozen=True)
class WeightsFile:
    """The content of a weights file.

    Attributes:
        path: the file; for a run folder its best.safetensors.
        sha256: hexadecimal checksum of all bytes of the file.
        header: of a checkpoint of this project, whose own checksum matches; None for other files.
        state: the model's tensors, on the CPU, in the file's dtypes.
    """

    path: Path
    sha256: str
    header: dict[str, Any] | None
    state: dict[str, Tensor]


def read_weights_file(path: str | os.PathLike[str]) -> WeightsFile:
    """Read and check a weights file. It is opened once, and what was checked is what is returned.

    Args:
        path: .pth or .pt with a state dict, at the top level or under "model" or "state_dict"; .safetensors, with
            tensors only or a checkpoint of this project; a run folder, from which best.safetensors is used; or
            "bundled". A prefix "module." of all names (DataParallel) is removed.

    Raises:
        OSError: the file does not exist or cannot be opened.
        DataError: it is corrupt, of a newer version of this project, contains other objects than tensors, or contains
            no tensors.
    """
    path, content = read_bundled() if path == BUNDLED else _read(Path(path))
    header = None
    if path.suffix.lower() == ".onnx":
        raise DataError(
            f"{path}: an ONNX file has no weights that can be trained; pass the run that it was exported from"
        )
    if path.suffix == ".safetensors":
        header, tensors = parse_safetensors(content, path)
        prefix = "" if header is None else "model."
        names = sorted(name for name in tensors if name.startswith(prefix))  # the file has them in any order
        state = {name.removeprefix(prefix): tensors[name] for name in names}
    else:
        state = _parse_pickle(content, path)
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    if not state:
        raise DataError(f"{path}: contains no tensors; a state dict is required")
    return WeightsFile(path, hashlib.sha256(content).hexdigest(), header, state)


def _read(path: Path) -> tuple[Path, bytes]:
    if path.is_dir():
        path = RunFolder(path).best
    if not path.is_file():
        last = RunFolder.of(path).last
        if last.is_file():
            raise FileNotFoundError(f"weights {path}: no such file; {last} exists: pass that file")
        raise FileNotFoundError(
            f"weights {path}: no such file; use coco, imagenet, bundled, none, a file or a run folder"
        )
    return path, read_bytes(path)


def _parse_pickle(content: bytes, path: Path) -> dict[str, Tensor]:
    if _is_compressed(content):
        raise DataError(f"{path}: a compressed archive, which torch.save never writes; extract it and save it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other versions of pickle, without the name of the file
            value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = one_line(reason_of(error))
        raise DataError(
            f"{path}: corrupt, or contains other objects than tensors, which are not loaded because a pickle can run "
            f"code ({reason}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # corrupt bytes can raise any exception
        reason = one_line(reason_of(error))
        raise DataError(
            f"{path}: corrupt, or not a file written by torch.save ({reason}); download it again"
        ) from error
    if isinstance(value, dict):
        value = next((value[key] for key in WRAPPERS if isinstance(value.get(key), dict)), value)
    if not isinstance(value, dict):
        raise DataError(f"{path}: contains a {type(value).__name__}; a state dict (name -> tensor) is required")
    unnamed = [name for name in value if not isinstance(name, str)]
    if unnamed:
        raise DataError(
            f"{path}: a tensor has the key {one_line(repr(unnamed[0]), 40)}, not a name; a state dict is required, as "
            "model.state_dict() returns it"
        )
    others = [name for name, item in value.items() if not isinstance(item, Tensor)]
    if others:
        raise DataError(
            f"{path}: {one_line(repr(others[0]), 80)} is not a tensor; a state dict is required, at the top level or "
            f"under {' or '.join(WRAPPERS)}"
        )
    return dict(value)


def _is_compressed(content: bytes) -> bool:
    """Return whether the content is a zip archive with compressed members."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # torch.load reports what is wrong
