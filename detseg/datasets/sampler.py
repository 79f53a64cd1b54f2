"""Define the order of samples as a function of (seed, epoch); the sampler's keys pass the epoch to the workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch.utils.data

from detseg.datasets.contracts import takes_sample_keys
from detseg.runtime.seeds import derive_seed


class SampleKey(NamedTuple):
    """Index of a :class:`~detseg.datasets.dataset.Dataset`: which sample, and which random augmentation of it.

    Workers stay alive between epochs and have copies of the dataset, so the epoch must be part of every index.

    Attributes:
        index: row in the dataset's table.
        epoch: 0, 1, ...
        occurrence: how often this row was sampled before in this epoch; 0 unless a sampler repeats rows.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed here
    epoch: int = 0
    occurrence: int = 0


class Shard(NamedTuple):
    """The batches of one of several processes: disjoint whole batches, assigned by batch number.

    Attributes:
        rank, world: rank of this process and world size.
        batch_size: images per batch.
        even: every process gets the same number of full batches, for training; the remaining samples at the end of an
            epoch's order are not used in that epoch. Else every image is in exactly one process, for evaluation.
    """

    rank: int
    world: int
    batch_size: int
    even: bool

    def select(self, order: list[int]) -> list[int]:
        """The rows of ``order`` that this process loads."""
        size = self.batch_size
        batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
        if self.even:
            batches = batches[: len(order) // (size * self.world) * self.world]
        return [index for batch in batches[self.rank :: self.world] for index in batch]


class EpochSampler(torch.utils.data.Sampler[SampleKey]):
    """All n samples once per epoch, in order or shuffled by (seed, epoch).

    ``train_one_epoch`` calls :meth:`set_epoch`; in your own loop call it yourself, else epoch 0 is repeated.

    Args:
        n: number of samples.
        seed: the run's seed, >= 0.
        shuffle: reshuffle in every epoch.
        epoch: the first epoch; resuming in epoch 7 returns the order of epoch 7.
        shard: the batches of this process, if there are several.
    """

    def __init__(
        self, n: int, *, seed: int = 0, shuffle: bool = False, epoch: int = 0, shard: Shard | None = None
    ) -> None:
        self.n, self.seed, self.shuffle, self.epoch = n, seed, shuffle, epoch
        self.shard = shard
        self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Set the epoch of the next iteration, and how many samples at its start are skipped (already processed)."""
        self.epoch, self.skip = epoch, skip

    def order(self) -> list[int]:
        """The rows 0..n-1 in this epoch's order."""
        if not self.shuffle:
            return list(range(self.n))
        return np.random.default_rng(derive_seed(self.seed, self.epoch)).permutation(self.n).tolist()

    def rank_order(self) -> list[int]:
        """The rows of this process in this epoch's order."""
        return self.order() if self.shard is None else self.shard.select(self.order())

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(index, self.epoch) for index in self.rank_order()[self.skip :])

    def __len__(self) -> int:
        return self.n if self.shard is None else len(self.shard.select(list(range(self.n))))


class IndexSampler(EpochSampler):
    """The same order as plain integers, for datasets that do not accept a :class:`SampleKey`."""

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return iter(self.rank_order()[self.skip :])


def sampler_class(dataset: object) -> type[EpochSampler]:
    """The sampler of the kind of index that ``dataset`` takes; see :mod:`detseg.datasets.contracts`."""
    return EpochSampler if takes_sample_keys(dataset) else IndexSampler
