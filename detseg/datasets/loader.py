"""Samples to batches: lists, never stacked, the same with any number of workers."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import cv2
import torch
import torch.utils.data

from detseg.datasets.dataset import Dataset
from detseg.datasets.labelled_images import LabelledImages
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.datasets.sampler import EpochSampler, IndexSampler, Shard
from detseg.datasets.views import Views
from detseg.errors import DataError
from detseg.runtime.signals import SIGNALS


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
) -> torch.utils.data.DataLoader[Any]:
    """A DataLoader whose batches depend on (dataset, batch size, seed, epoch) alone.

    Args:
        dataset: a :class:`Dataset`, :class:`LabelledImages`, :class:`RenderedScenes` or :class:`Views`, asked with
            :class:`SampleKey` so that it knows the epoch; or anybody's dataset of ``(image, target)``, which is asked
            with integers and draws its own random numbers.
        batch_size: images per batch; the last batch may be smaller.
        shuffle: shuffle anew in every epoch; tell the epoch by ``loader.sampler.set_epoch(epoch)``.
        seed: the run's seed; the order depends on (seed, epoch).
        workers: processes that load; 0 loads in this process. They stay alive between epochs.
        rank, world: this process among those that share the data: each gets whole batches by their number. Shuffled
            (for training) all get the same number of full ones, else every image goes to exactly one process.
        pin: put batches into page-locked memory, from which a GPU copies while it computes; only with a GPU.
        context: how workers start ("fork", "spawn", "forkserver"); None for the platform's default.
    """
    shard = Shard(rank, world, batch_size, even=shuffle) if world > 1 else None
    images = len(dataset)  # type: ignore[arg-type]
    if shuffle and world > 1 and images < batch_size * world:
        raise DataError(
            f"{images} images are not enough for {world} processes with batches of {batch_size}; lower the batch size "
            "or the number of processes"
        )
    kind = EpochSampler if isinstance(dataset, (Dataset, LabelledImages, RenderedScenes, Views)) else IndexSampler
    return Loader(
        dataset,
        batch_size,
        sampler=kind(images, seed=seed, shuffle=shuffle, shard=shard),
        collate_fn=collate_fn,
        num_workers=workers,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        multiprocessing_context=context if workers > 0 else None,
        pin_memory=pin,
    )


class Loader(torch.utils.data.DataLoader[Any]):
    """A DataLoader whose workers hear no SIGINT or SIGTERM, from their first moment on."""

    def __iter__(self) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a new process has its parent's mask
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    """One thread per worker, and no reaction to signals: the main process ends the workers when it has finished."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
