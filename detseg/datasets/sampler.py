"""Define the order of samples as a function of (seed, epoch); the sampler's keys pass the epoch to the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch.utils.data

from detseg.datasets.balance import Weights, check_weights, weighted_order
from detseg.datasets.contracts import takes_sample_keys
from detseg.errors import DataError
from detseg.runtime.seeds import derive_seed

T = TypeVar("T")


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

    def select(self, order: list[T]) -> list[T]:
        """The items of ``order`` that this process loads."""
        size = self.batch_size
        batches = [order[begin : begin + size] for begin in range(0, len(order), size)]
        if self.even:
            batches = batches[: len(order) // (size * self.world) * self.world]
        return [item for batch in batches[self.rank :: self.world] for item in batch]


class EpochSampler(torch.utils.data.Sampler[SampleKey]):
    """As many samples as there are, in order or shuffled by (seed, epoch): each once per epoch, or by ``weights``.

    ``train_one_epoch`` calls :meth:`set_epoch`; in your own loop call it yourself, else epoch 0 is repeated.

    Args:
        n: number of samples.
        seed: the run's seed, >= 0.
        shuffle: reshuffle in every epoch.
        epoch: the first epoch; resuming in epoch 7 returns the order of epoch 7.
        shard: the batches of this process, if there are several.
        weights: float64 [n], how often each sample is drawn relative to the others; needs ``shuffle``. A sample that
            is drawn several times in an epoch has another augmentation each time.

    Raises:
        DataError: weights that are negative, not finite or all 0, or without ``shuffle``.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        epoch: int = 0,
        shard: Shard | None = None,
        weights: Weights | None = None,
    ) -> None:
        if weights is not None and not shuffle:
            raise DataError("weights of samples need shuffle=True")
        self.n, self.seed, self.shuffle, self.epoch = n, seed, shuffle, epoch
        self.shard, self.weights = shard, None if weights is None else check_weights(weights, n)
        self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Set the epoch of the next iteration, and how many samples at its start are skipped (already processed)."""
        self.epoch, self.skip = epoch, skip

    def order(self) -> list[int]:
        """The rows 0..n-1 in this epoch's order; with weights, some several times and others not at all."""
        if not self.shuffle:
            return list(range(self.n))
        generator = np.random.default_rng(derive_seed(self.seed, self.epoch))
        return (
            generator.permutation(self.n).tolist() if self.weights is None else weighted_order(self.weights, generator)
        )

    def rank_keys(self) -> list[SampleKey]:
        """The samples of this process in this epoch's order."""
        keys = list(_keys(self.order(), self.epoch))
        return keys if self.shard is None else self.shard.select(keys)

    def __iter__(self) -> Iterator[SampleKey]:
        return iter(self.rank_keys()[self.skip :])

    def __len__(self) -> int:
        return self.n if self.shard is None else len(self.shard.select(list(range(self.n))))


class IndexSampler(EpochSampler):
    """The same order as plain integers, for datasets that do not accept a :class:`SampleKey`."""

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return (key.index for key in self.rank_keys()[self.skip :])


class OwnSampler(torch.utils.data.Sampler[Any]):
    """A user's sampler of rows, so that the augmentation of each sample depends on the epoch, and a run can resume.

    Args:
        sampler: yields rows; its ``set_epoch(epoch)``, if it has one, is called before each epoch. A resumed run
            has the same samples only if the order depends on the epoch alone.
        as_keys: whether the dataset takes a :class:`SampleKey`.
    """

    def __init__(self, sampler: Iterable[int], *, as_keys: bool) -> None:
        self.sampler, self.as_keys = sampler, as_keys
        self.epoch = self.skip = 0

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """As :meth:`EpochSampler.set_epoch`."""
        self.epoch, self.skip = epoch, skip
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        keys = _keys(self.sampler, self.epoch)
        return islice(keys if self.as_keys else (key.index for key in keys), self.skip, None)

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


def _keys(order: Iterable[int], epoch: int) -> Iterator[SampleKey]:
    """The keys of rows in this order, which count how often a row was there before."""
    seen: Counter[int] = Counter()
    for index in order:
        yield SampleKey(int(index), epoch, seen[index])
        seen[index] += 1


def sampler_class(dataset: object) -> type[EpochSampler]:
    """The sampler of the kind of index that ``dataset`` takes; see :mod:`detseg.datasets.contracts`."""
    return EpochSampler if takes_sample_keys(dataset) else IndexSampler
