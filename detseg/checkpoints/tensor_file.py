"""Write and read tensor files: a safetensors file with JSON and its own sha256 in the header, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from detseg.errors import DataError
from detseg.export.exported_file import is_exported
from detseg.models.weights.safetensors_file import SCHEMA, CorruptFileError, header_end, parse_safetensors
from detseg.runtime.checksum import BLANK, fill_checksum
from detseg.runtime.files import atomic_write
from detseg.runtime.run_folder import RunFolder

__all__ = ["SCHEMA", "CorruptFileError", "read_tensor_file", "write_tensor_file"]


def write_tensor_file(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Write ``tensors`` and a JSON-able ``header`` to ``path``, atomically.

    Args:
        before_replacing: called when the new file is on disk next to the old one, just before it replaces it.
    """
    # safetensors rejects views and shared storage; a copy has neither
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **header, "sha256": BLANK}, allow_nan=False)
    content = safetensors.torch.save(copies, metadata={"detseg": text})
    with atomic_write(path, before_replacing=before_replacing) as file:
        file.write(fill_checksum(content, header_end(content)))


def read_tensor_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read this project's header and all tensors of a file, after a check of the checksum.

    Raises:
        OSError, DataError: as :func:`load_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        last = RunFolder.of(path).last
        other = f"{last} exists: pass that file" if last.is_file() else "pass the folder of a run, or a checkpoint file"
        raise FileNotFoundError(f"{path}: no such checkpoint; {other}")
    if is_exported(path):
        raise DataError(
            f"{path}: an exported file is for predict and Predictor only; here pass the run that it was exported from"
        )
    header, tensors = parse_safetensors(path.read_bytes(), path)
    if header is None:
        raise DataError(f"{path}: a safetensors file without this project's header; pass it as --weights instead")
    return header, tensors
