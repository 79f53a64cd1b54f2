"""The order of samples: a function of (seed, epoch), carried to the workers by what the sampler yields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch.utils.data

from detseg.seeds import derive_seed


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


class EpochSampler(torch.utils.data.Sampler[SampleKey]):
    """All n samples once an epoch, in order or shuffled by (seed, epoch).

    ``train_one_epoch`` calls :meth:`set_epoch`; who iterates a loader by hand calls it himself, or sees epoch 0 again.

    Args:
        n: number of samples.
        seed: the run's seed, >= 0.
        shuffle: shuffle anew in every epoch.
        epoch: the epoch to begin with; resuming in epoch 7 gives the order of epoch 7.
    """

    def __init__(self, n: int, *, seed: int = 0, shuffle: bool = False, epoch: int = 0) -> None:
        self.n, self.seed, self.shuffle, self.epoch = n, seed, shuffle, epoch

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """The rows 0..n-1 in this epoch's order."""
        if not self.shuffle:
            return list(range(self.n))
        return np.random.default_rng(derive_seed(self.seed, self.epoch)).permutation(self.n).tolist()

    def __iter__(self) -> Iterator[SampleKey]:
        return (SampleKey(index, self.epoch) for index in self.order())

    def __len__(self) -> int:
        return self.n


class IndexSampler(EpochSampler):
    """The same order as plain integers, for datasets that know no :class:`SampleKey`."""

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        return iter(self.order())
