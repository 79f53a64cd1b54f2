"""Reading from archives: equal files, whatever the archive is."""

from __future__ import annotations

from pathlib import Path

import pytest

from detseg.benchmarks.speed import archives
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.media.files import read_bytes


def test_equal_files_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    archives.write_images(folder, 2)
    for archive in (archives.zipped(folder), archives.tarred(folder, "w"), archives.tarred(folder, "w:gz")):
        for read in (decode_image, read_bytes):
            comparison = archives.measure(folder, archive, "read", read, turns=1)
            assert comparison.ratio > 0
            assert "images per second" in comparison.note
    (folder / "00001.jpg").write_bytes(b"changed")
    with pytest.raises(DataError, match="differs from the file in the folder"):
        archives.measure(folder, archive, "read", read_bytes, turns=1)
