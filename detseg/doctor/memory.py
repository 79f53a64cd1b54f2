"""Estimate the memory that loading the images needs, and compare it with the machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detseg.annotations.groups import file_name
from detseg.annotations.table import AnnotationTable
from detseg.doctor.findings import Finding
from detseg.options.defaults import BATCH_SIZE_ON_CUDA
from detseg.runtime.machine import MachineFacts, available_cores, free_memory

SHARED = Path("/dev/shm")
"""Linux keeps in it what loader workers hand over; a container has 64 MB there unless it is told otherwise."""

WORKERS = 4
"""Largest default number of loader workers."""
PREFETCH = 2
"""Batches that each worker prepares in advance, the default of torch."""

COPIES = 3
"""Images of full size that exist at the same time while one is decoded: the pixels, and those of a conversion."""


@dataclass(frozen=True)
class MemoryNeed:
    """Memory in bytes that is needed while images are loaded.

    Attributes:
        image: while the largest image is decoded, with its masks.
        largest: name of that image.
        shared: in ``/dev/shm``, with ``WORKERS`` loader workers and the default batch size of a GPU.
        pixels: width and height of the largest image.
    """

    image: int
    largest: str
    shared: int
    pixels: tuple[int, int]

    @classmethod
    def of(cls, table: AnnotationTable, input_hw: tuple[int, int]) -> MemoryNeed | None:
        """The need of a table at an input size (shorter and longer side); None without images."""
        if not len(table):
            return None
        sides = np.stack([table.width, table.height]).astype(np.int64)
        objects = table.instances_per_image() if table.has_masks else np.zeros(len(table), np.int64)
        input_pixels = input_hw[0] * input_hw[1]
        needs = sides.prod(axis=0) * 3 * COPIES + objects * input_pixels
        largest = int(needs.argmax())
        sample = input_pixels * (3 + int(objects.max(initial=0)))
        shared = sample * int(BATCH_SIZE_ON_CUDA.value) * PREFETCH * WORKERS
        return cls(
            int(needs[largest]), file_name(table, largest), shared, (int(sides[0, largest]), int(sides[1, largest]))
        )

    def line(self) -> str:
        """``memory: 27 MB for each loading process (largest image: a.jpg), 58 MB in /dev/shm with 4 workers``."""
        return (
            f"memory: {_megabytes(self.image)} for each loading process (largest image: {self.largest}, "
            f"{self.pixels[0]} x {self.pixels[1]}), {_megabytes(self.shared)} in {SHARED} with {WORKERS} workers"
        )


def inspect_memory(
    need: MemoryNeed | None, machine: MachineFacts | None = None, shared: int | None = None
) -> list[Finding]:
    """Find out whether the machine has less memory than loading the images needs.

    Args:
        need: of the table.
        machine: the machine; None for this one.
        shared: free bytes of ``/dev/shm``; None for those of this machine.
    """
    if need is None:
        return []
    machine = machine or MachineFacts(cores=available_cores(), memory=free_memory())
    if shared is None:
        shared = shutil.disk_usage(SHARED).free if SHARED.is_dir() else need.shared
    findings = []
    if need.image > machine.memory:
        value = (
            f"decoding it ({need.pixels[0]} x {need.pixels[1]} pixels, with its masks) needs {_megabytes(need.image)}, "
            f"and {_megabytes(machine.memory)} are free"
        )
        findings.append(
            Finding("warning", "not enough memory", need.largest, value, "cut it into tiles, or reduce its size")
        )
    if need.shared > shared:
        value = f"{WORKERS} loader workers need up to {_megabytes(need.shared)}, and {_megabytes(shared)} are free"
        remedy = "train with fewer --workers, or give the container more (docker run --shm-size 2g)"
        findings.append(Finding("note", "not enough shared memory", str(SHARED), value, remedy))
    return findings


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f} MB" if number < 10e9 else f"{number / 1e9:.0f} GB"
