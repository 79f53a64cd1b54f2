"""Write and read tensor files: a safetensors file with JSON and its own sha256 in the header, written atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from detseg.errors import DataError
from detseg.models.weights.state_files import reject_constant
from detseg.runtime.checksum import BLANK, checksum_matches, fill_checksum
from detseg.runtime.files import atomic_write

SCHEMA = 3
"""1: no checksum, no epoch totals, no moving average. 2: with them. 3: current key names."""
CHECKSUM_SINCE = 2
"""First schema with a checksum; files of schema 1 are read without checking it."""
HEADER_LENGTH = 8
"""Number of bytes before safetensors' JSON header that store its length."""


class CorruptFileError(DataError):
    """The content of a file is not what was written."""


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
        file.write(fill_checksum(content, _header_end(content)))


def read_tensor_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read this project's header and all tensors of a file, after a check of the checksum.

    Raises:
        OSError, DataError: as :func:`load_checkpoint`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run writes best.safetensors and last.safetensors")
    content = path.read_bytes()
    end = _header_end(content)
    try:
        metadata = json.loads(content[HEADER_LENGTH:end]).get("__metadata__", {})
        header = json.loads(metadata.get("detseg", "null"), parse_constant=reject_constant)
        tensors = safetensors.torch.load(content)
    except (safetensors.SafetensorError, ValueError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptFileError(
            f"{path}: corrupt, or not a safetensors file ({reason}); use another checkpoint"
        ) from error
    if not isinstance(header, dict):
        raise DataError(f"{path}: a safetensors file without this project's header; pass it as --weights instead")
    schema = header.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise DataError(f"{path}: unknown schema {schema} (this version supports up to {SCHEMA}); upgrade detseg")
    if (schema >= CHECKSUM_SINCE or "sha256" in header) and not checksum_matches(content, end):
        raise CorruptFileError(f"{path}: corrupt, its checksum does not match; use another checkpoint")
    return header, tensors


def _header_end(content: bytes) -> int:
    return HEADER_LENGTH + int.from_bytes(content[:HEADER_LENGTH], "little")
