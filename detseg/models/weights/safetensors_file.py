"""Parse safetensors files: those of other programs, and this project's, with a JSON header and a checksum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from detseg.errors import DataError
from detseg.runtime.checksum import MARK, checksum_matches
from detseg.short_text import one_line

SCHEMA = 3
"""1: no checksum, no epoch totals, no moving average. 2: with them. 3: current key names."""
CHECKSUM_SINCE = 2
"""First schema with a checksum; files of schema 1 are read without checking it."""
HEADER_LENGTH = 8
"""Number of bytes before safetensors' JSON header that store its length."""
KEY = "detseg"
"""Key of this project's header in safetensors' metadata."""


class CorruptFileError(DataError):
    """The content of a file is not what was written."""


def parse_safetensors(content: bytes, path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Return this project's header, None for files of other programs, and all tensors of a file.

    Args:
        content: all bytes of the file.
        path: for error messages; nothing is opened.

    Raises:
        DataError: the file was written by a newer version of this project, or has tensors of a type that torch does
            not support; :class:`CorruptFileError`: it is not a safetensors file, or its checksum does not match.
    """
    end = header_end(content)
    has_checksum = MARK in content[:end]
    if has_checksum and not checksum_matches(
        content, end
    ):  # before anything else, which the corruption may have changed
        raise CorruptFileError(f"{path}: corrupt, its checksum does not match; use another checkpoint")
    try:
        tensors = safetensors.torch.load(content)
        metadata = json.loads(content[HEADER_LENGTH:end]).get("__metadata__") or {}
        header = json.loads(metadata[KEY], parse_constant=reject_constant) if KEY in metadata else None
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        reason = one_line(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise CorruptFileError(
            f"{path}: corrupt, or not a safetensors file ({reason}); use another copy, or download it again"
        ) from error
    except KeyError as error:
        raise DataError(
            f"{path}: torch has no tensors of type {error}; save the file again as float32 or float16"
        ) from error
    if KEY not in metadata and has_checksum:
        raise CorruptFileError(f"{path}: corrupt, the key of its header is not {KEY!r}; use another checkpoint")
    if KEY not in metadata:
        return None, tensors
    if not isinstance(header, dict):
        raise DataError(
            f"{path}: the header of detseg is {one_line(repr(header), 40)} and not an object; use another file"
        )
    schema = header.get("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise DataError(
            f"{path}: unknown schema {one_line(repr(schema), 40)} (this version supports up to {SCHEMA}); upgrade "
            "detseg"
        )
    if schema >= CHECKSUM_SINCE and not has_checksum:
        raise CorruptFileError(f"{path}: corrupt, its checksum does not match; use another checkpoint")
    return header, tensors


def header_end(content: bytes) -> int:
    """Return the offset of the first byte after safetensors' JSON header."""
    return HEADER_LENGTH + int.from_bytes(content[:HEADER_LENGTH], "little")


def reject_constant(name: str) -> float:
    """Raise ValueError for NaN and Infinity in JSON, which this project never writes."""
    raise ValueError(f"{name} is not a valid number")
