"""The cache of a run: features of the frozen parts of its model, computed once and used by all its loaders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, Views, data_loader, fixed_views
from detseg.datasets.balance import Weights
from detseg.errors import DataError
from detseg.features.level import deepest_level, measured_level
from detseg.features.loader import EvaluationFeatures, FeatureLoader, fill
from detseg.features.location import cache_location
from detseg.features.store import FeatureStore, source_checksum
from detseg.models import Model
from detseg.runtime.files import size_text
from detseg.runtime.machine import free_memory
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.signals import StopRequest
from detseg.short_text import duration
from detseg.tasks import Task


@dataclass(frozen=True)
class CacheSettings:
    """Where features are cached, which and how many.

    Attributes:
        where: "memory", "disk", "off", or "auto": memory if all features fit, else disk; off without a frozen backbone.
        sampled_views: randomly augmented views to cache besides the original and the flipped image.
        dtype: of the feature maps; torch.float16 or torch.float32.
        limit: maximum bytes of features; None: half of the free memory or disk space, on disk at most 20 GB.
        folder: for features on disk; None for :func:`~detseg.features.location.default_folder`.
    """

    where: Literal["auto", "memory", "disk", "off"] = "auto"
    sampled_views: int = 0
    dtype: torch.dtype = torch.float16
    limit: int | None = None
    folder: Path | None = None


class FeatureCache:
    """Features of the frozen parts of a model: :meth:`fill` computes them, then the loaders provide them.

    Attributes:
        level: layer of the cached features; None if nothing is cached.
        is_filled: whether there are features, so that :meth:`train_loader` and :meth:`val_loader` can be used.
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        options: CacheSettings | None = None,
        *,
        augment: str = "none",
        seed: int = 0,
        workers: int = 0,
        processes: Processes | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Create an empty cache.

        Args:
            augment: preset of the views.
            seed: the run's seed, >= 0: order of the training images, and choice of their views.
            workers: worker processes of every loader.
            processes: of the run; in a folder each of them computes a share of the features.
            reporter: gets the description of the cache and the progress; the terminal by default.

        Raises:
            DataError: features are to be cached in memory or on disk, but no backbone is frozen.
        """
        self.model, self.task, self.options = model, task, options or CacheSettings()
        self.augment, self.seed, self.workers = augment, seed, workers
        self.processes, self.reporter = processes or Processes(), reporter or terminal()
        self.level = deepest_level(model, self.options.where)
        self._transforms = fixed_views(augment, task, self.options.sampled_views) if self.level else []
        self._store: FeatureStore | None = None
        self._val_limit = 0

    @property
    def is_filled(self) -> bool:
        return self._store is not None

    def fill(self, train: AnnotationTable, stop_request: StopRequest) -> None:
        """Compute and cache the features of ``train``; first report their number, location and computing time.

        Does nothing if nothing is cached, or without images.

        Raises:
            Interrupted: an exit was requested; features already on disk stay there.
            DataError: a number is too large for the dtype of the cache; the message contains the image.
        """
        if self.level is None or not len(train):
            return
        world, dtype, views = self.processes.world, self.options.dtype, self._views(train)
        device = next(self.model.parameters()).device
        self.level, view_bytes, seconds = measured_level(self.model, views, self.level, dtype, self.reporter)
        count = len(views) * len(self._transforms)
        location = cache_location(
            self.options.where, view_bytes * count, limit=self.options.limit, folder=self.options.folder, world=world
        )
        names = ["original", *["flipped"] * (len(self._transforms) > 1)]
        names += [f"{self.options.sampled_views} sampled from {self.augment}"] * bool(self.options.sampled_views)
        cached = f", of which {size_text(location.limit)} are cached" if view_bytes * count > location.limit else ""
        self.reporter.line(
            f"cache: {self.level} features of {len(views)} images ({', '.join(names)}), about "
            f"{size_text(view_bytes * count)} of {str(dtype).removeprefix('torch.')} {location}{cached}; "
            f"{duration(seconds * count / (world if location.folder else 1))} to compute, once"
        )
        source = source_checksum(self.model, self.level, dtype, device)
        new_store = partial(
            FeatureStore, dtype=dtype, limit=max(1, location.limit // world), source=source, folder=location.folder
        )
        self._store = self._filled_store(views, self.level, new_store, stop_request)
        self._report(self._store)
        self._val_limit = free_memory() // 2 // world

    def _filled_store(
        self, views: Views, level: str, new_store: Callable[[], FeatureStore], stop_request: StopRequest
    ) -> FeatureStore:
        """Return the store of all views. With several processes each computes a share in the folder, then loads all."""
        store, processes = new_store(), self.processes
        share = (processes.rank, processes.world) if store.folder else (0, 1)
        fill(
            store, self.model, views, level, workers=self.workers, share=share, stop_request=stop_request,
            reporter=self.reporter,
        )  # fmt: skip
        if share[1] == 1:
            return store
        processes.wait()
        store = new_store()
        fill(store, self.model, views, level, workers=self.workers, cached_only=True, reporter=self.reporter)
        return store

    def _report(self, store: FeatureStore) -> None:
        if store.folder is not None and (store.reused or store.corrupt):
            corrupt = f", {store.corrupt} corrupt ones were computed again" if store.corrupt else ""
            self.reporter.line(f"  {store.reused} of {len(store)} were in {store.folder} already{corrupt}")
        if store.full:
            self.reporter.line(
                f"  {len(store)} are cached; the others are computed in each step (--cache-limit; no file is removed)"
            )

    def train_loader(
        self,
        table: AnnotationTable,
        batch_size: int,
        processes: Processes | None = None,
        *,
        weights: Weights | None = None,
    ) -> FeatureLoader:
        """Return shuffled batches of views of ``table``, a subset of the images that the cache was filled with.

        Args:
            processes: that share the batches; by default they are not divided.
            weights: as in ``data_loader``.

        Raises:
            DataError: the cache is not filled.
        """
        store, level = self._filled()
        processes = processes or Processes()
        return FeatureLoader(
            store, self.model, self._views(table), level, batch_size,
            seed=self.seed, workers=self.workers, rank=processes.rank, world=processes.world, weights=weights,
        )  # fmt: skip

    def val_loader(
        self, table: AnnotationTable, batch_size: int, processes: Processes | None = None
    ) -> EvaluationFeatures:
        """Return ordered batches of any ``table`` without augmentation, with features from the second pass on.

        Args:
            processes: that share the batches; by default they are not divided.

        Raises:
            DataError: the cache is not filled.
        """
        _, level = self._filled()
        processes = processes or Processes()
        loader = data_loader(
            Dataset(table, self.model.preprocessing, task=self.task), batch_size, workers=self.workers,
            pin=next(self.model.parameters()).device.type == "cuda", rank=processes.rank, world=processes.world,
        )  # fmt: skip
        return EvaluationFeatures(self.model, loader, level, self._val_limit)

    def _filled(self) -> tuple[FeatureStore, str]:
        if self._store is None or self.level is None:
            raise DataError("the feature cache is empty; call fill with the training images first")
        return self._store, self.level

    def _views(self, table: AnnotationTable) -> Views:
        return Views(table, self.model.preprocessing, task=self.task, views=self._transforms, seed=self.seed)
