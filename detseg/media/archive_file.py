"""Read one file of an archive in place: as it is stored, or inflated as far as it is read."""

from __future__ import annotations

import io
import os
import threading
import zlib
from collections.abc import Callable
from typing import Any

from detseg.errors import DataError
from detseg.media.archive_index import NO_CHECKSUM

CHUNK = 2**16
"""Bytes of compressed data that are read at once."""

_DAMAGED = "the archive is damaged: download or copy it again"


_lock = threading.Lock()


def read_at(descriptor: int, count: int, start: int) -> bytes:
    """At most ``count`` bytes of an open file from ``start``, whatever other threads and processes read."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, start)
    with _lock:  # Windows, where processes share no position
        os.lseek(descriptor, start, os.SEEK_SET)
        return os.read(descriptor, count)


class StoredFile(io.RawIOBase):
    """A part of a file as a file of its own.

    Args:
        descriptor: an open file; reading does not use its position, so threads and processes may share it.
        start, size: the part, in bytes.
        name: for messages.
        checksum: CRC-32 of the content, checked when all of it is read at once; ``NO_CHECKSUM`` for none.
        close: called at the end.
    """

    def __init__(
        self, descriptor: int, start: int, size: int, name: str, checksum: int, close: Callable[[], None] | None
    ) -> None:
        super().__init__()
        self.name = name
        self._descriptor, self._start, self._size, self._checksum = descriptor, start, size, checksum
        self._position = 0
        self._close = close

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        content = self._part(self._position, min(len(view), max(self._size - self._position, 0)))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)

    def readall(self) -> bytes:
        is_whole = self._position == 0
        content = bytes(self._part(self._position, max(self._size - self._position, 0)))
        self._position += len(content)
        if is_whole and self._checksum not in (NO_CHECKSUM, zlib.crc32(content)):
            raise DataError(f"{self.name}: its content does not have the checksum that the archive states; {_DAMAGED}")
        return content

    def close(self) -> None:
        if not self.closed and self._close is not None:
            self._close()
        super().close()

    def _part(self, position: int, count: int) -> bytes | memoryview:
        """``count`` bytes of the content; it has at least that number."""
        return self._stored(position, count)

    def _stored(self, position: int, count: int) -> bytes:
        """``count`` bytes as they are stored."""
        parts: list[bytes] = []
        missing, start = count, self._start + position
        while missing > 0:
            part = read_at(self._descriptor, min(missing, 2**30), start)
            if not part:
                raise DataError(f"{self.name}: the archive became shorter while it was read; copy it again")
            parts.append(part)
            missing, start = missing - len(part), start + len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class DeflatedFile(StoredFile):
    """A compressed part of a file; what was inflated stays in memory until it is closed.

    Args:
        packed: bytes of the compressed part.
        size: bytes of the content, as the archive states: no more are inflated.
    """

    def __init__(
        self,
        descriptor: int,
        start: int,
        packed: int,
        size: int,
        name: str,
        checksum: int,
        close: Callable[[], None] | None,
    ) -> None:
        super().__init__(descriptor, start, size, name, checksum, close)
        self._packed, self._read = packed, 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._content = bytearray()

    def _part(self, position: int, count: int) -> bytes | memoryview:
        self._inflate(position + count)
        return memoryview(self._content)[position : position + count]

    def _inflate(self, length: int) -> None:
        """Inflate the first ``length`` bytes of the content; at its end, check that it ends there."""
        while len(self._content) < length or (length == self._size and not self._inflater.eof):
            data = self._inflater.unconsumed_tail
            if not data:
                count = min(CHUNK, self._packed - self._read)
                data = self._stored(self._read, count)
                self._read += count
            try:
                content = self._inflater.decompress(data, max(self._size + 1 - len(self._content), 1))
            except zlib.error as error:
                raise DataError(f"{self.name}: corrupt deflated data ({error}); {_DAMAGED}") from error
            self._content += content
            if len(self._content) > self._size:
                raise DataError(
                    f"{self.name}: it has more than the {self._size} bytes that the archive states; {_DAMAGED}"
                )
            if self._inflater.eof and len(self._content) < self._size:
                raise DataError(
                    f"{self.name}: it has {len(self._content)} bytes, not the {self._size} that the archive states; "
                    f"{_DAMAGED}"
                )
            if not data and not content:
                raise DataError(f"{self.name}: its compressed data ends too early; {_DAMAGED}")
