"""Load batches of cached features instead of images: frozen layers run once for each view, not in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from detseg.datasets.balance import Weights
from detseg.datasets.dataset import Sample as ImageSample
from detseg.datasets.loader import collate_fn, data_loader
from detseg.datasets.packed_masks import PackedTarget
from detseg.datasets.views import EveryView, UncachedViews, ViewKey, Views
from detseg.engine.update import to_device
from detseg.errors import DataError
from detseg.features.store import FeatureStore, Sample, Target
from detseg.models import Model
from detseg.models.frozen_features import FrozenFeatures
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.signals import StopRequest

Batch = tuple[tuple[Any, ...], tuple[Any, ...]]


def _single_image_features(model: Model, level: str, image: Tensor) -> FrozenFeatures:
    """Compute the features of one image as a batch of one."""
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
    cached_only: bool = False,
    stop_request: StopRequest | None = None,
    reporter: Reporter | None = None,
) -> None:
    """Store the features of every view of every row, until the store is full.

    Args:
        model: its frozen layers compute the features, one image at a time.
        share: (i, n) for process i of n processes that fill a folder together: every n-th item, starting at i.
        cached_only: load the features that are in the folder, and compute nothing.
        stop_request: checked between images.
        reporter: shows the progress; the terminal by default.

    Raises:
        Interrupted: a stop was requested.
        DataError: a number is too large for the store's dtype; the message contains the image.
    """
    every = EveryView(views)
    items = range(share[0], len(every), share[1])
    loader = data_loader(torch.utils.data.Subset(every, items), 1, workers=workers)
    stop_request, reporter = stop_request or StopRequest(), reporter or terminal()
    batches = stop_request.interruptible(iter(loader))
    progress = reporter.progress(batches, "caching features", total=len(items), unit="image")
    model.keep_frozen()
    compute = partial(_single_image_features, model, level)
    for item, ((image,), (target,)) in zip(items, progress, strict=True):
        try:
            if cached_only:
                store.reuse(every.view_key(item), image, target)
            else:
                store.add(every.view_key(item), image, target, compute)
        except DataError as error:
            raise DataError(f"{views.table[item // len(views.views)].name}: {error}") from error
        if store.full:
            break


class FeatureLoader:
    """The batches of :func:`~detseg.datasets.loader.data_loader` over views, with features instead of images.

    Features in the store are reused. Other images are loaded (by workers, if there are any), passed through the frozen
    layers and rounded as in the store. So the batches do not depend on the content of the store.

    Attributes:
        dataset, sampler, batch_size: as in a DataLoader.
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
        weights: Weights | None = None,
    ) -> None:
        """Create a loader shuffled by (seed, epoch); the other arguments are those of ``data_loader``."""
        self.store, self.dataset, self.batch_size = store, views, batch_size
        self._model, self._level = model, level
        self._uncached = UncachedViews(views, store.keys)
        complete = len(store) == len(views) * len(views.views)
        self._loader = data_loader(
            self._uncached, batch_size, shuffle=True, seed=seed, workers=0 if complete else workers, rank=rank,
            world=world, weights=weights,
        )  # fmt: skip
        self.sampler = self._loader.sampler

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for keys, samples in self._loader:
            yield self._batch(keys, samples)

    def first_batch(self) -> Batch:
        """A batch for measurements: the first rows, in their views of epoch 0."""
        return self._batch(*self._loader.first_batch())

    def _batch(self, keys: Sequence[ViewKey], samples: Sequence[ImageSample | None]) -> Batch:
        """The features and targets of some views.

        Args:
            samples: the image and target of each view; None if its features are in the store.
        """
        features, targets = collate_fn(
            [
                self.store.sample(key) if sample is None else self._computed(*sample)
                for key, sample in zip(keys, samples, strict=True)
            ]
        )
        return features, targets

    @torch.no_grad()
    def _computed(self, image: Tensor, target: Target) -> Sample:
        return self.store.rounded(_single_image_features(self._model, self._level, image)), target


class EvaluationFeatures:
    """The batches of an evaluation loader, with features instead of images from the second pass on.

    The features are those of the first pass: float32, computed for whole batches as in prediction, so that the
    detections are bit-identical. Batches over the memory limit are loaded and computed each time.
    """

    def __init__(self, model: Model, loader: torch.utils.data.DataLoader[Any], level: str, limit: int) -> None:
        """Create an empty cache of at most ``limit`` bytes of features."""
        self.dataset, self.sampler, self.batch_size = loader.dataset, loader.sampler, loader.batch_size
        self._model, self._loader, self._level, self._limit = model, loader, level, limit
        self._cached: list[tuple[tuple[FrozenFeatures, ...], tuple[PackedTarget, ...]]] = []
        self._nbytes = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for features, packed in self._cached:
            yield features, tuple(target.unpack() for target in packed)
        cached_batches = len(self._cached)
        if cached_batches == len(self._loader):
            return
        self.sampler.set_epoch(0, skip=cached_batches * (self.batch_size or 1))  # type: ignore[attr-defined]
        try:
            for images, targets in self._loader:
                features = self._features(images)
                self._add(features, targets)
                yield features, targets
        finally:
            self.sampler.set_epoch(0)  # type: ignore[attr-defined]

    @torch.no_grad()
    def _features(self, images: Sequence[Tensor]) -> tuple[FrozenFeatures, ...]:
        device = next(self._model.parameters()).device
        images, _ = to_device(images, [], device)
        return tuple(self._model.frozen_features(images, self._level, alone=False))

    def _add(self, features: Sequence[FrozenFeatures], targets: Sequence[Target]) -> None:
        self._full = self._full or self._nbytes + sum(image.nbytes for image in features) > self._limit
        if self._full:
            return
        copies = tuple(image.to("cpu").with_maps(torch.float32) for image in features)
        self._nbytes += sum(copy.nbytes for copy in copies)
        self._cached.append((copies, tuple(PackedTarget.pack(target) for target in targets)))
