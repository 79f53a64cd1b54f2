"""Load batches of samples: tuples, never stacked, independent of the number of workers."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import torch
import torch.utils.data

from detseg.datasets.balance import Weights
from detseg.datasets.contracts import takes_sample_keys
from detseg.datasets.sampler import OwnSampler, Shard, sampler_class
from detseg.errors import DataError
from detseg.runtime.signals import SIGNALS

HAS_SIGNAL_MASK = hasattr(signal, "pthread_sigmask")
"""False on Windows."""


def collate_fn(batch: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    """``[(image, target), ...]`` -> ``((image, ...), (target, ...))``. Images differ in size, so nothing is stacked."""
    return tuple(zip(*batch, strict=True))


def data_loader(
    dataset: torch.utils.data.Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    context: str | None = None,
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
    weights: Weights | None = None,
    drop_last: bool = False,
    sampler: Iterable[int] | None = None,
    collate: Callable[[Sequence[Any]], Any] | None = None,
) -> Loader:
    """A DataLoader whose batches depend only on (dataset, batch size, seed, epoch).

    Args:
        dataset: a dataset of ``(image, target)``. One whose class has ``takes_sample_keys = True``, as this project's,
            is indexed with :class:`~detseg.datasets.sampler.SampleKey`, which includes the epoch; any other with
            integers, and it uses its own random numbers.
        batch_size: images per batch; the last batch may be smaller.
        shuffle: reshuffle in every epoch; set the epoch with ``loader.sampler.set_epoch(epoch)``.
        seed: the run's seed; the order depends on (seed, epoch).
        workers: number of loader processes; 0 loads in this process. They stay alive between epochs.
        rank, world: rank of this process and world size: processes share the data in whole batches. With ``shuffle``
            (training) all get the same number of full batches, else every image is in exactly one process.
        pin: copy batches to page-locked memory, so that transfers to a GPU overlap with computation; only with a GPU.
        context: start method of workers ("fork", "spawn", "forkserver"); None for the platform's default.
        weights: float64 [images], how often each image is drawn relative to the others; of
            :func:`~detseg.datasets.balance.repeat_factors`, for example. An epoch has as many samples as images.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        sampler: your own order: yields rows, has a length, and optionally ``set_epoch(epoch)``, which is called before
            each epoch; in place of ``shuffle`` and ``weights``, and in one process.
        collate: your own function from a list of samples to a batch; training takes ``(images, targets)``. It is
            pickled if workers are spawned.

    Raises:
        DataError: arguments that contradict each other, or fewer images than the processes need.
    """
    if sampler is not None and (shuffle or weights is not None or world > 1):
        raise DataError("data_loader: a sampler decides on the order; omit shuffle, weights and world, or the sampler")
    shard = Shard(rank, world, batch_size, even=shuffle) if world > 1 else None
    images = len(dataset)  # type: ignore[arg-type]
    if shuffle:
        check_world(images, batch_size, world)
    order = (
        OwnSampler(sampler, as_keys=takes_sample_keys(dataset))
        if sampler is not None
        else sampler_class(dataset)(images, seed=seed, shuffle=shuffle, shard=shard, weights=weights)
    )
    return process_loader(
        dataset, batch_size, order, collate or collate_fn, workers=workers, context=context, pin=pin,
        drop_last=drop_last,
    )  # fmt: skip


def process_loader(
    dataset: torch.utils.data.Dataset[Any],
    batch_size: int | None,
    sampler: torch.utils.data.Sampler[Any],
    collate: Callable[[Any], Any],
    *,
    workers: int,
    context: str | None = None,
    pin: bool = False,
    drop_last: bool = False,
    prefetch: int | None = None,
) -> Loader:
    """A DataLoader with worker processes that ignore signals; for loaders with an order of their own.

    Args:
        batch_size: None if each index of the sampler gives what ``collate`` takes.
        prefetch: items that each worker loads ahead; None for torch's default.
    """
    return Loader(
        dataset,
        batch_size,
        sampler=sampler,
        collate_fn=collate,
        drop_last=drop_last,
        num_workers=workers,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers > 0 else None,
        pin_memory=pin,
        prefetch_factor=prefetch if workers > 0 else None,
    )


def check_world(images: int, batch_size: int, world: int) -> None:
    """Raise DataError if a training set has no full batch for each of ``world`` processes."""
    if world > 1 and images < batch_size * world:
        raise DataError(
            f"{images} images are not enough for {world} processes with batches of {batch_size}; lower the batch size "
            "or the number of processes"
        )


class Loader(torch.utils.data.DataLoader[Any]):
    """A DataLoader whose workers ignore SIGINT and SIGTERM from their start."""

    def first_batch(self) -> Any:
        """The batch of the first rows, in order, loaded in this process; for measurements."""
        count = min(self.batch_size or 1, len(self.dataset))  # type: ignore[arg-type]
        return self.collate_fn([self.dataset[index] for index in range(count)])

    def __iter__(self) -> Any:
        if not HAS_SIGNAL_MASK:
            return super().__iter__()
        old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a new process inherits its parent's mask
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _start_worker(worker: int) -> None:
    """Use one thread per worker and ignore signals: the main process stops the workers when it finishes."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if HAS_SIGNAL_MASK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
