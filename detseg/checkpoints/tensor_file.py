"""Sealed files: one safetensors file with JSON in its header and its own sha256, written whole or not at all."""

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
from detseg.models.weights.state_files import no_number
from detseg.runtime.checksum import BLANK, checksum_matches, fill_checksum
from detseg.runtime.files import atomic_write

SCHEMA = 3
"""1: no checksum, no totals of the epoch, no average. 2: with them. 3: the names of today."""
CHECKSUM_SINCE = 2
"""Files of schema 1 have no seal, no sums and no average; they are read as they are."""
HEADER_LENGTH = 8
"""Bytes before safetensors' JSON header that hold its length."""


class CorruptFileError(DataError):
    """A file is not what was written."""


def write_tensor_file(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    before_replacing: Callable[[], None] | None = None,
) -> None:
    """Write ``tensors`` and a JSON-able ``header`` to ``path``, atomically.

    Args:
        before_replacing: called when the new file is on disk beside the old one, which it then replaces.
    """
    # safetensors refuses views and shared storage; a copy has neither
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps({"schema": SCHEMA, **header, "sha256": BLANK}, allow_nan=False)
    content = safetensors.torch.save(plain, metadata={"detseg": text})
    with atomic_write(path, before_replacing=before_replacing) as file:
        file.write(fill_checksum(content, _header_end(content)))


def read_tensor_file(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """This project's header and all tensors of a file that is as it was written; errors as :func:`load_checkpoint`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint; a run writes best.safetensors and last.safetensors")
    content = path.read_bytes()
    end = _header_end(content)
    try:
        metadata = json.loads(content[HEADER_LENGTH:end]).get("__metadata__", {})
        header = json.loads(metadata.get("detseg", "null"), parse_constant=no_number)
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
        raise DataError(f"{path}: schema {schema} is not known (this version knows {SCHEMA}); upgrade")
    if (schema >= CHECKSUM_SINCE or "sha256" in header) and not checksum_matches(content, end):
        raise CorruptFileError(f"{path}: corrupt, its content is not what was written; use another checkpoint")
    return header, tensors


def _header_end(content: bytes) -> int:
    return HEADER_LENGTH + int.from_bytes(content[:HEADER_LENGTH], "little")
