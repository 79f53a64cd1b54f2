"""Run ``benchmark inspect``: check images, and only decode them, with the same number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core, time_interleaved
from detseg.classes import ClassMap
from detseg.doctor.image_facts import THREADS, image_facts
from detseg.images import decode_image

IMAGES = 500
SIZE_HW = (864, 1152)
"""One megapixel."""

TARGET = 1 / 1.3
"""Target ratio: a check takes at most 1.3 times the time of decoding."""


def compare(device: object, *, images: int = IMAGES, turns: int = 5) -> list[Comparison]:
    """Compare all checks that need pixels with decoding each image once.

    Args:
        device: not used.
    """
    with TemporaryDirectory(prefix="detseg-inspect-") as folder, one_core():
        table = _written_images(Path(folder), images)
        files = table.files()
        return [
            time_interleaved(
                f"checking {images} JPEGs of one megapixel",
                lambda: image_facts(table),
                lambda: _decode(files),
                baseline=f"decoding them once, {THREADS} threads each",
                target=TARGET,
                turns=turns,
            )
        ]


def _decode(files: Sequence[Path]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(lambda file: decode_image(file, upright=False), files):
            pass


def _written_images(folder: Path, number: int) -> AnnotationTable:
    """A table of JPEGs with structures of many sizes, as photos have."""
    generator = np.random.default_rng(0)
    builder = TableBuilder(ClassMap.from_names(["object"]), folder, source="generated images")
    for index in range(number):
        coarse = generator.integers(0, 255, (SIZE_HW[0] // 14, SIZE_HW[1] // 14, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.jpg"), cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC))
        builder.add_image(f"{index}.jpg", SIZE_HW)
    return builder.build()
