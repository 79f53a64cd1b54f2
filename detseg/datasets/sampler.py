"""The order of samples: a function of (seed, epoch), carried to the workers by what the sampler yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch.utils.data

from detseg.runtime.seeds import derive_seed


class SampleKey(NamedTuple):
    """What a :class:`~detseg.datasets.dataset.Dataset` is asked for: which sample, and which draw of its augmentation.

    Workers outlive epochs and hold copies of the dataset, so the epoch must travel with every request.

    Attributes:
        index: row in the dataset's table.
        epoch: 0, 1, ...
        occurrence: how often this row was drawn before in this epoch; 0 unless a sampler repeats.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    epoch: int = 0
    occurrence: int = 0


class Shard(NamedTuple):
    """The share of one of several processes: whole batches, by their number, none twice.

    Attributes:
        rank, world: this process, and how many there are.
        batch_size: images of a batch.
        even: every process gets as many full batches as the others, for training; what is left over at the end of an
            epoch's order is not seen in that epoch. Else every image is in exactly one share, for evaluation.
    """

    rank: int
    world: int
    batch_size: int
    even: bool

    def of(self, order: list[int]) -> list[int]:
        size = self.batch_size
        batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
        if self.even:
            batches = batches[: len(order) // (size * self.world) * self.world]
        return [index for batch in batches[self.rank :: self.world] for index in batch]


class EpochSampler(torch.utils.data.Sampler[SampleKey]):
    """All n samples once an epoch, in order or shuffled by (seed, epoch).

    ``train_one_epoch`` calls :meth:`set_epoch`; who iterates a loader by hand calls it himself, or sees epoch 0 again.

    Args:
        n: number of samples.
        seed: the run's seed, >= 0.
        shuffle: shuffle anew in every epoch.
        epoch: the epoch to begin with; resuming in epoch 7 gives the order of epoch 7.
        shard: of several processes, which share of the batches this one gets.
    """

    def __init__(
        self, n: int, *, seed: int = 0, shuffle: bool = False, epoch: int = 0, shard: Shard | None = None
    ) -> None:
        self.n, self.seed, self.shuffle, self.epoch = n, seed, shuffle, epoch
        self.shard = shard
        self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Which epoch the next iteration is, and how many of its samples are left out at its begin: they are done."""
        self.epoch, self.skip = epoch, skip

    def order(self) -> list[int]:
        """The rows 0..n-1 in this epoch's order."""
        if not self.shuffle:
            return list(range(self.n))
        return np.random.default_rng(derive_seed(self.seed, self.epoch)).permutation(self.n).tolist()

    def own(self) -> list[int]:
        """The rows of this process in this epoch's order."""
        return self.order() if self.shard is None else self.shard.of(self.order())

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(index, self.epoch) for index in self.own()[self.skip :])

    def __len__(self) -> int:
        return self.n if self.shard is None else len(self.shard.of(list(range(self.n))))


class IndexSampler(EpochSampler):
    """The same order as plain integers, for datasets that know no :class:`SampleKey`."""

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return iter(self.own()[self.skip :])
