"""The machine: what something was measured on, and how much memory is left."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def machine(device: torch.device) -> str:
    """Processor, cores, threads, GPU and torch version, in a line."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def free_memory() -> int:
    """Bytes that can be taken without swapping, below the limit of a container; half of all where that is not told."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)


def default_workers(device: torch.device) -> int:
    """Loader processes when the user did not say: beside a GPU the cores but one, at most 4; none beside a CPU.

    A CPU that trains has no core to spare: on two cores a loader process made the demo run a fifth slower.
    """
    return 0 if device.type == "cpu" else max(0, min(4, len(os.sched_getaffinity(0)) - 1))
