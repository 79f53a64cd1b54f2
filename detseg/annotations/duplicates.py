"""The same image on both sides of a split: a score that is too good to be true."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable


def shared_content(splits: Mapping[str, AnnotationTable]) -> list[tuple[str, str]]:
    """Images whose file has the same bytes as one of an earlier part: (the first such one, the image), each named as
    ``part: file``. An image is named once, so that many copies of one image stay a short list.

    Only files of equal length are read. Members of archives and frames of videos are not looked at, nor are images
    that were saved anew. A file that cannot be opened is left to whoever decodes it.
    """
    by_length: dict[int, list[tuple[str, str, Path]]] = {}
    for part, table in splits.items():
        for row in range(len(table)):
            if str(table.member[row]) or table.frame[row] >= 0:
                continue
            path = table.root / str(table.media[row])
            if path.is_file():
                by_length.setdefault(path.stat().st_size, []).append((part, file_name(table, row), path))
    suspects = [same for same in by_length.values() if len({part for part, _, _ in same}) > 1]
    by_content: dict[bytes, list[tuple[str, str]]] = {}
    for part, name, path in tqdm([file for same in suspects for file in same], "comparing files", disable=None):
        try:
            digest = hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            continue
        by_content.setdefault(digest, []).append((part, name))
    return [
        (f"{same[0][0]}: {same[0][1]}", f"{part}: {name}")
        for same in by_content.values()
        for part, name in same
        if part != same[0][0]
    ]
