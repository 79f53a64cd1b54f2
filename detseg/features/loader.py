"""Batches of features in the place of images: what is frozen runs once for each view, not in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from detseg.datasets.loader import collate_fn, data_loader
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import EveryView, ViewKey, Views
from detseg.engine.update import to_device
from detseg.errors import DataError
from detseg.features.store import FeatureStore, Sample, Target
from detseg.models import Model
from detseg.models.features import FrozenFeatures
from detseg.runtime.signals import StopRequest

Batch = tuple[tuple[Any, ...], tuple[Any, ...]]


def _features_of(model: Model, image: Tensor, level: str) -> FrozenFeatures:
    """Of one image, run by itself."""
    device = next(model.parameters()).device
    return model.frozen_features([image.to(device)], level, alone=True)[0]


def fill(
    store: FeatureStore,
    model: Model,
    views: Views,
    level: str,
    *,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
    found_only: bool = False,
    stop_request: StopRequest | None = None,
) -> None:
    """Keep the features of every view of every row, until the store is full.

    Args:
        model: whose frozen parts make them, each image by itself.
        share: (i, n) for the i-th of n processes that fill a folder together: each n-th item from the i-th on.
        found_only: take what is in the folder, and compute nothing.
        stop_request: where a request to leave is looked for.

    Raises:
        Interrupted: there was one.
        DataError: a number is too large for the store's dtype; names the image.
    """
    every = EveryView(views)
    items = range(share[0], len(every), share[1])
    loader = data_loader(torch.utils.data.Subset(every, items), 1, workers=workers)
    stop_request = stop_request or StopRequest()
    loaded = stop_request.waiting(iter(loader))
    progress = tqdm(loaded, desc="features of frozen parts", total=len(items), unit="image", disable=None, leave=False)
    model.keep_frozen()
    for item, ((image,), (target,)) in zip(items, progress, strict=True):
        compute = partial(_features_of, model, image, level)
        try:
            store.keep(every.place(item), image, target, None if found_only else compute)
        except DataError as error:
            raise DataError(f"{views.table[item // len(views.views)].name}: {error}") from error
        if store.full:
            break


class FeatureLoader:
    """The batches of :func:`~detseg.datasets.loader.data_loader` over views, with features instead of images.

    What the store keeps is taken from it; the others are loaded, by worker processes if there are any, run through the
    frozen parts and rounded as the store would. So the batches are the same whatever the store holds.

    Attributes:
        dataset, sampler, batch_size: as of a DataLoader.
    """

    def __init__(
        self,
        store: FeatureStore,
        model: Model,
        views: Views,
        level: str,
        batch_size: int,
        *,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Shuffled by (seed, epoch); the other arguments are those of ``data_loader``."""
        self.store, self.dataset, self.batch_size = store, views, batch_size
        self._model, self._level = model, level
        views.kept = store.places
        complete = len(store) == len(views) * len(views.views)
        self._loader = data_loader(
            views, batch_size, shuffle=True, seed=seed, workers=0 if complete else workers, rank=rank, world=world
        )
        self.sampler = self._loader.sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for firsts, targets in self._loader:
            yield collate_fn([self._sample(*pair) for pair in zip(firsts, targets, strict=True)])  # type: ignore[misc]

    def first_batch(self) -> Batch:
        """A batch to measure with: the first rows, as epoch 0 shows them."""
        samples = [self._sample(*self.dataset[index]) for index in range(min(self.batch_size, len(self.dataset)))]
        return collate_fn(samples)  # type: ignore[return-value]

    @torch.no_grad()
    def _sample(self, first: ViewKey | Tensor, target: Target | None) -> Sample:
        if isinstance(first, ViewKey):
            return self.store.sample(first)
        assert target is not None
        return self.store.rounded(_features_of(self._model, first, self._level)), target


class EvaluationFeatures:
    """The batches of an evaluation's loader, with features instead of images from the second pass on.

    They are those of the first pass: float32, of images of a batch run together as for predictions, so that what is
    found is the same to the bit. Batches over the limit are loaded and run each time.
    """

    def __init__(self, model: Model, loader: torch.utils.data.DataLoader[Any], level: str, limit: int) -> None:
        """``limit``: bytes of features that are kept at most."""
        self.dataset, self.sampler, self.batch_size = loader.dataset, loader.sampler, loader.batch_size
        self._model, self._loader, self._level, self._limit = model, loader, level, limit
        self._kept: list[tuple[tuple[FrozenFeatures, ...], tuple[PackedTarget, ...]]] = []
        self._nbytes = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for features, packed in self._kept:
            yield features, tuple(target.target() for target in packed)
        done = len(self._kept)
        if done == len(self._loader):
            return
        self.sampler.set_epoch(0, skip=done * (self.batch_size or 1))  # type: ignore[attr-defined]
        try:
            for images, targets in self._loader:
                features = self._features(images)
                self._keep(features, targets)
                yield features, targets
        finally:
            self.sampler.set_epoch(0)  # type: ignore[attr-defined]

    @torch.no_grad()
    def _features(self, images: Sequence[Tensor]) -> tuple[FrozenFeatures, ...]:
        device = next(self._model.parameters()).device
        images, _ = to_device(images, [], device)
        return tuple(self._model.frozen_features(images, self._level, alone=False))

    def _keep(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> None:
        self._full = self._full or self._nbytes + sum(one.nbytes for one in features) > self._limit
        if self._full:
            return
        copies = tuple(one.to("cpu").with_maps(torch.float32) for one in features)
        self._nbytes += sum(one.nbytes for one in copies)
        self._kept.append((copies, tuple(PackedTarget.of(target) for target in targets)))
