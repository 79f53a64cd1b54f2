"""Decompress a compressed tar once into a nameless temporary file, within limits."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from detseg.errors import DataError, reason_of

MAX_BYTES = 2**40
"""Bytes of a decompressed tar (1 TiB)."""

FREE_SHARE = 0.05
"""Share of the disk that is left free."""

MAX_UNPACKED = 2**32
"""Bytes of a decompressed tar (4 GiB) above which ``MAX_RATIO`` is checked."""

MAX_RATIO = 100
"""Largest decompressed size as a multiple of the compressed one; gzip reaches 1032, images hardly more than 1."""

_CHUNK = 2**22
_MAGIC = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))


def decompressed(path: str, file: BinaryIO) -> BinaryIO | None:
    """The content of a file compressed by gzip, bzip2 or xz; None if it is not compressed, whatever its name is.

    The result is a temporary file without a name, in the folder of ``TMPDIR``: it needs no removal, whatever happens,
    and worker processes inherit it.

    Raises:
        DataError: corrupt or truncated, larger than the limits, or than the free space of the disk.
    """
    from detseg.runtime.reporter import progress  # with tqdm, which images in files do not need

    file.seek(0)
    head = file.read(6)
    opener = next((opener for magic, opener in _MAGIC if head.startswith(magic)), None)
    if opener is None:
        return None
    file.seek(0)
    packed = os.fstat(file.fileno()).st_size
    target = tempfile.TemporaryFile(prefix="detseg-")  # noqa: SIM115  (open as long as the archive is)
    try:
        with opener(file, "rb") as stream:
            chunks = _checked(path, iter(lambda: stream.read(_CHUNK), b""), packed)
            for chunk in progress(chunks, f"decompressing {path}", unit="x 4 MiB", leave=False):
                target.write(chunk)
        target.flush()
    except BaseException as error:
        target.close()
        if isinstance(error, (EOFError, OSError, zlib.error, lzma.LZMAError)) and not _is_full(error):
            raise DataError(
                f"{path}: truncated or corrupt compressed data ({reason_of(error)}); download or copy it again"
            ) from error
        if _is_full(error):
            raise DataError(f"{path}: {_no_space()}") from error
        raise
    return target


def _checked(path: str, chunks: Iterator[bytes], packed: int) -> Iterator[bytes]:
    """The chunks, as long as they are within the limits."""
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > MAX_BYTES or (total > MAX_UNPACKED and total > MAX_RATIO * packed):
            raise DataError(
                f"{path}: its {packed} bytes become more than {total >> 20} MiB when decompressed (at most "
                f"{MAX_RATIO} times as many, and {MAX_BYTES >> 40} TiB, are): a decompression bomb; decompress it "
                "yourself, if you trust it, and pass the .tar"
            )
        disk = shutil.disk_usage(tempfile.gettempdir())
        if disk.free < FREE_SHARE * disk.total:
            raise DataError(f"{path}: {_no_space()}")
        yield chunk


def _no_space() -> str:
    return (
        f"no space to decompress it in {tempfile.gettempdir()}; set TMPDIR to a folder on a larger disk, or decompress "
        "it yourself and pass the .tar, which is read in place"
    )


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (28, 122)  # no space, quota
