"""Read the headers of image files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detseg.errors import DataError
from detseg.images import ImageHeader, read_header
from detseg.runtime.reporter import progress

NAMED = 5
"""Number of file names listed in a message."""

THREADS = 8
"""Threads that read headers: opening a file waits for the disk, most of all on network storage."""


def read_headers(root: Path, names: Sequence[str], source: str) -> list[ImageHeader]:
    """Read the headers of many files in several threads, with a progress bar on a terminal.

    Raises:
        DataError: files that cannot be read as images (lists their number and the first five).
    """

    results = _headers_or_errors(root, names, f"{source}: image sizes")
    broken = [f"{name} ({header})" for name, header in zip(names, results, strict=True) if isinstance(header, str)]
    if broken:
        raise DataError(
            f"{source}: {len(broken)} of {len(names)} images cannot be read: {first_few(broken)}; replace the files or "
            "remove the entries"
        )
    return [header for header in results if isinstance(header, ImageHeader)]


def unreadable(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> error of the files that are not images."""
    results = zip(names, _headers_or_errors(root, names, "image files"), strict=True)
    return {name: result for name, result in results if isinstance(result, str)}


def _headers_or_errors(root: Path, names: Sequence[str], description: str) -> list[ImageHeader | str]:
    def read(name: str) -> ImageHeader | str:
        try:
            return read_header(root / name)
        except (DataError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(progress(pool.map(read, names), description, total=len(names)))


def first_few(items: Sequence[str]) -> str:
    """The first ``NAMED`` items, comma separated."""
    return ", ".join(items[:NAMED]) + (", ..." if len(items) > NAMED else "")
