"""Distributed training with ``torchrun``: the rank of this process, and collective operations."""

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
"""Timeout in seconds of the collectives of a step: if a process dies or hangs, the others stop within this time."""

EVALUATION_TIMEOUT = 24 * 3600.0
"""Timeout in seconds while the main process evaluates the predictions of all."""

NETWORK_ERROR = re.compile("gloo|nccl|pair closure|timed? ?out|closed by peer", re.IGNORECASE)
"""Text in torch's generic RuntimeErrors when another process is gone."""


@dataclass(frozen=True)
class Processes:
    """Rank of this process (0 .. ``world`` - 1) and collectives with the others.

    Single process: rank 0, world size 1, all collectives are no-ops.
    """

    rank: int = 0
    world: int = 1
    step_group: Any = None  # gloo groups, so that numbers and bytes need no GPU: one with the timeout of a step,
    long_group: Any = None  # one with the timeout of an evaluation

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, model: torch.nn.Module) -> torch.nn.Module:
        """``model`` wrapped so that gradients are averaged over all processes; unchanged for a single process."""
        if self.world == 1:
            return model
        device = next(model.parameters()).device
        # DDP rebuilds its buckets after the first update, except with find_unused_parameters. With three processes the
        # buckets determine the order of sums, and a resumed run would differ in the last bits.
        on_cpu = device.type == "cpu"
        return torch.nn.parallel.DistributedDataParallel(
            model, None if on_cpu else [device], find_unused_parameters=on_cpu
        )

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """For each flag, whether it is set in any process."""
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
        """In the main process, the content of each process, by rank; elsewhere an empty list. Bytes, not pickles."""
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
        """The content of the main process, in every process."""
        if self.world == 1:
            return content
        length = torch.tensor([len(content)])
        torch.distributed.broadcast(length, 0, group=self.long_group)
        part = _tensor(content) if self.is_main else torch.empty(int(length), dtype=torch.uint8)
        torch.distributed.broadcast(part, 0, group=self.long_group)
        return part.numpy().tobytes()

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors of the main process into those of every process."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until every process has called this method."""
        self.broadcast_bytes(b"")


@contextmanager
def joined_processes(
    device: torch.device, timeout: float = STEP_TIMEOUT, remedy: str = "continue with --resume"
) -> Iterator[Processes]:
    """Initialize the process group of ``torchrun``, and destroy it at the end. Without ``torchrun``: a single process.

    Args:
        timeout: timeout in seconds of the collectives of a step.
        remedy: what to do after an error.

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
        long_group = torch.distributed.new_group(backend="gloo", timeout=timedelta(seconds=EVALUATION_TIMEOUT))
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), step_group, long_group)
    except RuntimeError as error:
        if not NETWORK_ERROR.search(str(error)):
            raise
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        raise ConnectionError(
            f"process {rank} of {world} lost the connection to the others: one died, or did not answer for "
            f"{timeout:g} s. See its own message above; {remedy} ({str(error).splitlines()[0][:200]})"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
