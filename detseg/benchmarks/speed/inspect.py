"""Run ``benchmark inspect``: check images, and only decode them, with the same number of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.benchmarks.speed.interleaved_timing import Comparison, one_core
from detseg.classes import ClassMap
from detseg.doctor.image_facts import THREADS, image_facts
from detseg.images import decode_image
from detseg.runtime.reporter import progress

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
        _decode(files)  # the files are in memory then
        ours, theirs = [], []
        for _ in progress(range(turns), "inspect", unit="turn", leave=False):
            theirs.append(_cpu_seconds(lambda: _decode(files)))
            ours.append(_cpu_seconds(lambda: image_facts(table)))
    name, baseline = f"checking {images} JPEGs of one megapixel", f"decoding them once, {THREADS} threads each"
    return [Comparison(name, baseline, tuple(ours), tuple(theirs), TARGET, "CPU time of all threads", "CPU s")]


def _cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of all threads in one call: other work on the machine does not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


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
