"""Write and read tensor files: a safetensors file with JSON and its own sha256 in the header, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from detseg.errors import DataError
from detseg.export.exported_file import is_exported
from detseg.models.weights.safetensors_file import (
    HEADER_LENGTH,
    KEY,
    SCHEMA,
    CorruptFileError,
    header_end,
    parse_safetensors,
)
from detseg.runtime.checksum import BLANK, fill_checksum
from detseg.runtime.files import read_bytes, write_bytes
from detseg.runtime.run_folder import RunFolder

__all__ = ["SCHEMA", "CorruptFileError", "read_again", "read_tensor_file", "write_tensor_file"]

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
"""safetensors' names of the types that :func:`read_again` reads."""


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
    write_bytes(path, fill_checksum(content, header_end(content)), before_replacing=before_replacing)


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
    header, tensors = parse_safetensors(read_bytes(path), path)
    if header is None:
        raise DataError(f"{path}: a safetensors file without this project's header; pass it as --weights instead")
    return header, tensors


def read_again(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a tensor file whose checksum was checked earlier in this run; only its length is checked again.

    It is read and not mapped into memory: if it is truncated in the meantime, that is an error and not a signal.

    Raises:
        OSError: it cannot be opened or read.
        CorruptFileError: it was truncated or overwritten since.
    """
    try:
        with path.open("rb", buffering=0) as file:
            entries = json.loads(_exactly(file, int(_exactly(file, HEADER_LENGTH).view(torch.int64))).numpy().tobytes())
            header = json.loads(entries.pop("__metadata__")[KEY])
            content = _exactly(file, max((entry["data_offsets"][1] for entry in entries.values()), default=0))
        tensors = {
            name: content[slice(*entry["data_offsets"])].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in entries.items()
        }
    except (ValueError, LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise CorruptFileError(f"{path}: truncated or overwritten since the run began") from error
    return header, tensors


def _exactly(file: Any, count: int) -> Tensor:
    """The next ``count`` bytes of a file, as uint8; ValueError if there are fewer."""
    if not 0 <= count <= os.fstat(file.fileno()).st_size:
        raise ValueError(f"{count} bytes")
    content = torch.empty(count, dtype=torch.uint8)
    view, done = content.numpy().data, 0
    while done < count:
        read = file.readinto(view[done:])
        if not read:
            raise ValueError(f"{done} of {count} bytes")
        done += read
    return content
