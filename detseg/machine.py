"""What something was measured on."""

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
