"""A checksum inside the file that it is of: one flipped bit anywhere is found, and there is no second file to lose.

The file holds the sha256 of itself, taken while the 64 places of the sum held zeros.
"""

from __future__ import annotations

import hashlib

MARK = b'\\"sha256\\": \\"'
"""What stands before the sum: a JSON key inside of a JSON string, as safetensors keeps a program's own header. (Several
keys beside each other it writes in random order, and equal runs would give unequal files.)"""
BLANK = "0" * 64
"""What stands in the place of the sum before it is known."""


def fill_checksum(content: bytes, end: int) -> bytes:
    """``content`` with its blank sum filled in; the blank lies after ``MARK`` in the first ``end`` bytes."""
    place = _place(content, end)
    assert place >= 0
    assert content[place : place + 64] == BLANK.encode()
    return content[:place] + hashlib.sha256(content).hexdigest().encode() + content[place + 64 :]


def checksum_matches(content: bytes, end: int) -> bool:
    """Whether ``content`` is as it was sealed."""
    place = _place(content, end)
    if place < 0:
        return False
    digest = hashlib.sha256(content[:place])
    digest.update(BLANK.encode())
    digest.update(memoryview(content)[place + 64 :])
    return digest.hexdigest().encode() == content[place : place + 64]


def _place(content: bytes, end: int) -> int:
    found = content.rfind(MARK, 0, end)
    return -1 if found < 0 or found + len(MARK) + 64 > end else found + len(MARK)
