"""Compute the checksum of a file, or embed one: any flipped bit is detected, and there is no second file to lose.

A file with an embedded one contains its own sha256, computed while the 64 characters of the checksum were zeros.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

MARK = b'\\"sha256\\": \\"'
"""The bytes before the checksum: a JSON key inside a JSON string, which is how safetensors stores a program's own
header. (It writes several metadata keys in random order, and then equal runs would write different files.)"""
BLANK = "0" * 64
"""Placeholder for the checksum until it is computed."""


def fill_checksum(content: bytes, end: int) -> bytes:
    """``content`` with its placeholder replaced by the checksum; it follows ``MARK`` in the first ``end`` bytes."""
    offset = _checksum_offset(content, end)
    assert offset >= 0
    assert content[offset : offset + 64] == BLANK.encode()
    return content[:offset] + hashlib.sha256(content).hexdigest().encode() + content[offset + 64 :]


def checksum_matches(content: bytes, end: int) -> bool:
    """Whether ``content`` matches its embedded checksum."""
    offset = _checksum_offset(content, end)
    if offset < 0:
        return False
    digest = hashlib.sha256(content[:offset])
    digest.update(BLANK.encode())
    digest.update(memoryview(content)[offset + 64 :])
    return digest.hexdigest().encode() == content[offset : offset + 64]


def file_checksum(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_offset(content: bytes, end: int) -> int:
    """Offset of the checksum in the first ``end`` bytes; -1 if there is none."""
    mark_offset = content.rfind(MARK, 0, end)
    return -1 if mark_offset < 0 or mark_offset + len(MARK) + 64 > end else mark_offset + len(MARK)
