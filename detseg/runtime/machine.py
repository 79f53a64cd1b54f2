"""Describe the machine, and report free memory and the default number of workers."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ASSUMED_MEMORY = 4 * 2**30
"""Bytes of free memory where the system does not report it."""


@dataclass(frozen=True)
class MachineFacts:
    """What decisions depend on, as a value, so that they can be made (and tested) for any machine.

    Attributes:
        device: "cpu", "cuda" or "cuda:1".
        cores: CPU cores that this process may use.
        memory: bytes of free memory.
        gpu_memory: bytes of memory of the GPU in total; 0 without one.
    """

    device: str = "cpu"
    cores: int = 2
    memory: int = ASSUMED_MEMORY
    gpu_memory: int = 0

    @property
    def cuda(self) -> bool:
        """Whether training runs on a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def default_workers(self) -> int:
        """Default number of loader workers: with a GPU, all cores but one, at most 4; on a CPU, none.

        Training on a CPU uses all cores: on two cores a loader worker made the demo run a fifth slower.
        """
        return max(0, min(4, self.cores - 1)) if self.cuda else 0

    @classmethod
    def of(cls, device: torch.device) -> MachineFacts:
        """The facts of this machine, with ``device`` for training."""
        gpu_memory = 0
        if device.type == "cuda":
            import torch

            gpu_memory = int(torch.cuda.get_device_properties(device).total_memory)
        return cls(str(device), available_cores(), free_memory(), gpu_memory)


def describe_machine(device: torch.device) -> str:
    """Processor, cores, threads, GPU and torch version, in one line."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name}, {available_cores()} cores, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"


def available_cores() -> int:
    """CPU cores that this process may use; all cores where the platform has no affinity (macOS, Windows)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes that can be allocated without swapping, within the limit of a container.

    Half of the total memory if the system reports no more than that (macOS), ``ASSUMED_MEMORY`` if nothing (Windows).
    """
    free = ASSUMED_MEMORY
    if hasattr(os, "sysconf"):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(0, free)
