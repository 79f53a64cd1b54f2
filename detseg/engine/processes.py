"""Several processes that train one model: which one this is, as ``torchrun`` says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed


@dataclass(frozen=True)
class Processes:
    """This process among all: ``rank`` 0 .. ``world`` - 1. One process alone is rank 0 of 1."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, model: torch.nn.Module) -> torch.nn.Module:
        """``model`` whose gradients are averaged over all processes; the model itself where there is one."""
        if self.world == 1:
            return model
        return torch.nn.parallel.DistributedDataParallel(model)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, with one thread each on a CPU; leave them at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), world)
    finally:
        torch.distributed.destroy_process_group()
