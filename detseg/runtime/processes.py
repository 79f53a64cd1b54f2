"""Several processes that train one model: which one this is, as ``torchrun`` says, and what they tell each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

STEP_TIMEOUT = 120.0
"""Seconds that processes wait for each other in a step: who dies or hangs ends the others within them."""

SCORE_TIMEOUT = 24 * 3600.0
"""Seconds that processes wait while the first one scores the predictions of all."""

OF_THE_NETWORK = re.compile("gloo|nccl|pair closure|timed? ?out|closed by peer", re.IGNORECASE)
"""What torch's plain RuntimeErrors say when another process is gone."""


@dataclass(frozen=True)
class Processes:
    """This process among all: ``rank`` 0 .. ``world`` - 1. One process alone is rank 0 of 1, and tells nobody."""

    rank: int = 0
    world: int = 1
    step_group: Any = None  # groups of gloo, so that numbers and bytes need no GPU: one waits for a step,
    long_group: Any = None  # one until everything is scored

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, model: torch.nn.Module) -> torch.nn.Module:
        """``model`` whose gradients are averaged over all processes; the model itself where there is one."""
        if self.world == 1:
            return model
        device = next(model.parameters()).device
        # DDP lays out its buckets anew after the first update, unless it is told to look for unused parameters, and
        # with three processes the layout decides the order of sums: a resumed run would differ in the last bits
        same = device.type == "cpu"
        return torch.nn.parallel.DistributedDataParallel(model, None if same else [device], find_unused_parameters=same)

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag whether it is up in any process."""
        if self.world == 1:
            return list(flags)
        votes = torch.tensor(flags, dtype=torch.int32)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX, group=self.step_group)
        return [bool(vote) for vote in votes.tolist()]

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Each number's sum over all processes, in float64."""
        if self.world == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        torch.distributed.all_reduce(total, group=self.step_group)
        return list(total.tolist())

    def gather(self, content: bytes) -> list[bytes]:
        """In the first process what each process gave, by rank; elsewhere an empty list. Bytes, not pickles."""
        if self.world == 1:
            return [content]
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        torch.distributed.all_gather(lengths, torch.tensor([len(content)]), group=self.long_group)
        if not self.is_main:
            torch.distributed.send(_tensor(content), 0, group=self.long_group)
            return []
        parts = [content]
        for rank in range(1, self.world):
            part = torch.empty(int(lengths[rank]), dtype=torch.uint8)
            torch.distributed.recv(part, rank, group=self.long_group)
            parts.append(part.numpy().tobytes())
        return parts

    def broadcast_bytes(self, content: bytes) -> bytes:
        """What the first process gave, in every process."""
        if self.world == 1:
            return content
        length = torch.tensor([len(content)])
        torch.distributed.broadcast(length, 0, group=self.long_group)
        part = _tensor(content) if self.is_main else torch.empty(int(length), dtype=torch.uint8)
        torch.distributed.broadcast(part, 0, group=self.long_group)
        return part.numpy().tobytes()

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Fill the tensors of every process with those of the first."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until every process is here."""
        self.broadcast_bytes(b"")


@contextmanager
def joined_processes(device: torch.device, timeout: float = STEP_TIMEOUT) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started; leave them at the end. Without ``torchrun``: this one alone.

    Args:
        timeout: seconds that they wait for each other in a step.

    Raises:
        ConnectionError: another process died, or did not answer in time.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    limit = timedelta(seconds=timeout)
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=limit)
    try:
        step_group = torch.distributed.new_group(backend="gloo", timeout=limit)
        long_group = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=SCORE_TIMEOUT))
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), step_group, long_group)
    except RuntimeError as error:
        if not OF_THE_NETWORK.search(str(error)):
            raise
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        raise ConnectionError(
            f"process {rank} of {world} lost the others: one died, or did not answer for {timeout:g} s. Look for its "
            f"own message above; go on with --resume ({str(error).splitlines()[0][:200]})"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
