"""The processes of ``torchrun`` that predict together; without ``torchrun`` a single process, and no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from detseg.errors import DataError


@dataclass(frozen=True)
class PredictingProcesses:
    """This process and the others.

    Attributes:
        rank, world: number of this process, from 0, and of all.
        device: of this process; None for the default.
        group: ``Processes`` of torch; None for a single process.
    """

    rank: int = 0
    world: int = 1
    device: str | None = None
    group: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def from_main(self, function: Callable[[], Any]) -> Any:
        """The result of ``function``, which runs in the main process only, in every process: values that JSON has.

        Raises:
            DataError, OSError: in the main process as ``function`` raised it; in the others a DataError of its text.
        """
        value, problem, raised = None, "", None
        if self.is_main:
            try:
                value = function()
            except (ValueError, OSError) as error:
                if self.group is None:
                    raise
                problem, raised = str(error) or type(error).__name__, error
        if self.group is not None:
            value, problem = json.loads(self.group.broadcast_bytes(json.dumps([value, problem]).encode()))
        if raised is not None:
            raise raised
        if problem:
            raise DataError(problem)
        return value

    def gather(self, value: Any) -> list[Any]:
        """In the main process the value of each process, by rank; elsewhere an empty list. Values that JSON has."""
        if self.group is None:
            return [value]
        return [json.loads(content) for content in self.group.gather(json.dumps(value).encode())]


@contextmanager
def predicting_processes(device: str | None) -> Iterator[PredictingProcesses]:
    """Join the processes of ``torchrun`` for the block. With several GPUs and no ``device`` each uses one of its own.

    Raises:
        ConnectionError: another process died.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield PredictingProcesses(device=device)
        return
    import torch

    from detseg.runtime.processes import joined_processes

    if device is None and torch.cuda.is_available():
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    # gloo, also with GPUs: only numbers and names are exchanged
    with joined_processes(torch.device("cpu"), remedy="repeat the command") as group:
        yield PredictingProcesses(group.rank, group.world, device, group)


def threads_per_process(threads: int) -> int:
    """The part of ``threads`` for each process of this machine, at least one."""
    return max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
