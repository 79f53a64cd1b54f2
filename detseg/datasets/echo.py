"""Use each decoded image several times before the next one: data echoing (Choi et al. 2020, arXiv:1907.05550).

A group of as many images as a batch has is decoded once, and becomes as many consecutive batches as it is echoed: each
batch has every image of the group once, with an augmentation of its own ("example echoing before augmentation" in the
paper). One worker makes all batches of a group, so no image is decoded twice, and none is kept after its group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch.utils.data

from detseg.datasets.balance import Weights
from detseg.datasets.dataset import Dataset, Sample
from detseg.datasets.loader import check_world, collate_fn, process_loader
from detseg.datasets.sampler import EpochSampler, SampleKey, Shard
from detseg.errors import DataError

Group = list[list[SampleKey]]
"""The keys of the batches of one group; all batches have the same rows in the same order."""


class EchoSampler(torch.utils.data.Sampler[Group]):
    """The groups of an epoch: the images in the order of an :class:`EpochSampler`, each ``echo`` times.

    Which batches there are does not depend on where an epoch is begun: a group whose first batches were processed
    before has only its other ones.

    Args:
        images: the order of the images of an epoch, shuffled by (seed, epoch).
        batch_size: images of a group.
        echo: batches of a group.
    """

    def __init__(self, images: EpochSampler, batch_size: int, echo: int) -> None:
        self.images, self.batch_size, self.echo = images, batch_size, echo
        self.skip = 0

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self.images.epoch

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """As :meth:`EpochSampler.set_epoch`; ``skip`` is a multiple of the batch size."""
        self.images.set_epoch(epoch)
        self.skip = skip

    def __iter__(self) -> Iterator[Group]:
        skipped = self.skip // self.batch_size
        keys = self.images.rank_keys()
        for number, begin in enumerate(range(0, len(keys), self.batch_size)):
            rows = keys[begin : begin + self.batch_size]
            first = max(0, skipped - number * self.echo)
            group = [[_echoed(key, self.echo, time) for key in rows] for time in range(first, self.echo)]
            if group:
                yield group

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)


class EchoLoader:
    """The batches of an epoch in which every image is decoded once and used ``echo`` times.

    An epoch has ``echo`` times as many batches. They depend only on (dataset, batch size, echo, seed, epoch), not on
    the number of workers. Each worker prepares a group ahead, so memory grows with ``echo``.

    Args:
        dataset: augmented samples, ``echoed``, without cached decoded images.
        batch_size, seed, workers, rank, world, pin, weights: as in :func:`~detseg.datasets.loader.data_loader`,
            shuffled.
        echo: how often each image is used, at least 2.

    Attributes:
        dataset, sampler, batch_size: as in a DataLoader.

    Raises:
        DataError: echo below 2, a dataset without augmentation, with cached images or not ``echoed``, for which it has
            no effect, or fewer images than the processes need.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        echo: int,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        pin: bool = False,
        weights: Weights | None = None,
    ) -> None:
        if echo < 2 or dataset.augment is None or dataset.decoded is not None or not dataset.echoed:
            raise DataError(
                f"data echoing, {echo} times: it must be at least 2, with Dataset(..., augment=..., echoed=True) "
                "without cached decoded images"
            )
        check_world(len(dataset), batch_size, world)
        shard = Shard(rank, world, batch_size, even=True) if world > 1 else None
        images = EpochSampler(len(dataset), seed=seed, shuffle=True, shard=shard, weights=weights)
        self.dataset, self.batch_size = dataset, batch_size
        self.sampler = EchoSampler(images, batch_size, echo)
        self._loader = process_loader(
            _EchoedGroups(dataset), None, self.sampler, _collated_batches, workers=workers, pin=pin, prefetch=1
        )

    def __len__(self) -> int:
        return len(self.sampler) * self.sampler.echo

    def __iter__(self) -> Iterator[Any]:
        for batches in self._loader:
            yield from batches

    def first_batch(self) -> Any:
        """The batch of the first rows, in order, loaded in this process; for measurements."""
        return collate_fn([self.dataset[index] for index in range(min(self.batch_size, len(self.dataset)))])


class _EchoedGroups(torch.utils.data.Dataset[list[list[Sample]]]):
    """The samples of groups, image by image, so that only one decoded image is kept at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, group: Group) -> list[list[Sample]]:
        images = [[self.dataset[key] for key in keys] for keys in zip(*group, strict=True)]
        return [list(batch) for batch in zip(*images, strict=True)]


def _collated_batches(batches: Sequence[Sequence[Sample]]) -> list[tuple[tuple[Any, ...], ...]]:
    return [collate_fn(batch) for batch in batches]


def _echoed(key: SampleKey, echo: int, time: int) -> SampleKey:
    return SampleKey(key.index, key.epoch, key.occurrence * echo + time)
