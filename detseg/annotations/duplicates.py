"""Find images that are in more than one split: they make validation scores too high."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.errors import DataError
from detseg.media.files import file_size, is_file, read_bytes
from detseg.runtime.reporter import progress


def shared_content(
    splits: Mapping[str, AnnotationTable], digests: Mapping[Path, bytes] | None = None
) -> list[tuple[str, str]]:
    """Find images whose file has the same bytes as a file in an earlier split.

    Returns pairs (the first such file, the image), each as ``split: file``. Each image is listed once, so that many
    copies of one image make a short list. Only files of equal length are read. Frames of videos are not compared, and
    re-encoded copies are not found. A file that cannot be opened is skipped here: decoding it reports the error.

    Args:
        splits: name -> images.
        digests: SHA-256 of files that were read before, which are not read again.
    """
    digests = digests or {}
    by_length: dict[int, list[tuple[str, str, Path]]] = {}
    for split, table in splits.items():
        for row in range(len(table)):
            if str(table.member[row]) or table.frame[row] >= 0:
                continue
            path = table.root / str(table.media[row])
            if is_file(path):
                by_length.setdefault(file_size(path), []).append((split, file_name(table, row), path))
    suspects = [same for same in by_length.values() if len({split for split, _, _ in same}) > 1]
    by_content: dict[bytes, list[tuple[str, str]]] = {}
    for split, name, path in progress([file for same in suspects for file in same], "comparing files"):
        try:
            digest = digests.get(path) or hashlib.sha256(read_bytes(path)).digest()
        except (DataError, OSError):
            continue
        by_content.setdefault(digest, []).append((split, name))
    return [
        (f"{same[0][0]}: {same[0][1]}", f"{split}: {name}")
        for same in by_content.values()
        for split, name in same
        if split != same[0][0]
    ]
