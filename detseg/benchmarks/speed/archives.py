"""Compare images read from a zip, a tar and a compressed tar, in place, with the same files in a folder."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch

from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.errors import DataError
from detseg.images import decode_image
from detseg.media.files import read_bytes

IMAGES = 300
SIZE_HW = (480, 640)
QUALITY = 90
BASELINE = "the same files in a folder"


def compare(device: torch.device) -> list[Comparison]:
    """Measure reading alone, and reading with decoding, on one CPU core; the device is not used."""
    with one_core(), TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        write_images(folder)
        return [
            measure(folder, archive, task, read)
            for archive in (zipped(folder), tarred(folder, "w"), tarred(folder, "w:gz"))
            for task, read in (("read and decode", decode_image), ("read", read_bytes))
        ]


def measure(folder: Path, archive: Path, task: str, read: Callable[[Path], object], turns: int = 5) -> Comparison:
    """Compare one way of reading.

    Raises:
        DataError: a file in the archive differs.
    """
    names = sorted(path.name for path in folder.iterdir())
    for name in names:
        if read_bytes(archive / name) != (folder / name).read_bytes():
            raise DataError(f"{archive}: {name} differs from the file in the folder")
    comparison = time_interleaved(
        f"{task} {len(names)} JPEGs of {SIZE_HW[0]} x {SIZE_HW[1]} in a {archive.suffix[1:]}",
        lambda: [read(archive / name) for name in names],
        lambda: [read(folder / name) for name in names],
        baseline=BASELINE,
        turns=turns,
    )
    per_second = [len(names) / min(times) for times in (comparison.ours, comparison.theirs)]
    return replace(comparison, note=f"{per_second[0]:.0f} images per second, {per_second[1]:.0f} from the folder")


def write_images(folder: Path, number: int = IMAGES) -> None:
    """JPEGs of smooth noise, of about 70 kB each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(number):
        small = rng.integers(0, 255, (SIZE_HW[0] // 4, SIZE_HW[1] // 4, 3), np.uint8)
        image = cv2.resize(small, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{index:05}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def zipped(folder: Path) -> Path:
    """A deflated zip of the files of a folder."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def tarred(folder: Path, mode: str) -> Path:
    """A tar of the files of a folder, not compressed for mode "w"."""
    path = folder.with_suffix(".tar" if mode == "w" else ".tgz")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
    return path
