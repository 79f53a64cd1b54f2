"""Build the data loaders of a run: of images, or of cached features of its frozen parts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, Views, data_loader, fixed_views, preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.errors import DataError
from detseg.features.loader import EvaluationFeatures, FeatureLoader, fill
from detseg.features.store import FeatureStore, source_checksum
from detseg.models import Model
from detseg.options.plan import Phase, Plan
from detseg.options.training import CacheOptions
from detseg.runtime.machine import free_memory
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.signals import StopRequest

GB = 10**9
DISK_LIMIT = 20 * GB
MAX_NECK_RATIO = 2.0
"""Features of a frozen neck are cached unless they need more than this multiple of the memory of the backbone's; then
the neck, which is fast, runs in every step."""


class DataModule:
    """Loaders of a run: :meth:`train_loader` and :meth:`val_loader` of any subset of its images.

    With a frozen backbone and a cache, :meth:`prepare` computes the features of the training images.
    """

    def __init__(
        self,
        plan: Plan,
        phase: Phase,
        model: Model,
        processes: Processes | None = None,
        folder: Path | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        """Create a data module without cached features.

        Args:
            phase: one of ``plan.phases``, which says where features are cached.
            folder: run folder, for the file of decoded images; None to decode images each time.

        Raises:
            DataError: ``cache`` is memory or disk, but no backbone is frozen.
        """
        self.plan, self.model, self.task = plan, model, plan.model.task
        self.cache = phase.cache
        self.processes, self.reporter = processes or Processes(), reporter or terminal()
        self.level = _level(phase.cache, model)
        self.views = fixed_views(plan.training.augment, self.task, plan.cache.cached_views) if self.level else []
        self.folder = folder
        self._store: FeatureStore | None = None
        self._val_limit = 0

    def prepare(self, train: AnnotationTable, stop_request: StopRequest) -> None:
        """Compute and cache the features of ``train``; first report their number, location and computing time.

        Raises:
            Interrupted: an exit was requested; features already on disk stay there.
        """
        if self.level is None or not len(train):
            return
        options, world = self.plan.cache, self.processes.world
        views = self._views(train)
        dtype = getattr(torch, options.cache_dtype)
        device = next(self.model.parameters()).device
        self.level, view_bytes, seconds = _measured_features(self.model, views, self.level, dtype)
        count = len(views) * len(self.views)
        location, limit, folder = _cache_location(options, self.cache, view_bytes * count, world)
        names = ["original", *["flipped"] * (len(self.views) > 1)]
        names += [f"{options.cached_views} sampled from {self.plan.training.augment}"] * bool(options.cached_views)
        cached = f", of which {_size(limit)} are cached" if view_bytes * count > limit else ""
        duration = seconds * count / (world if folder else 1)
        self.reporter.line(
            f"cache: {self.level} features of {len(views)} images ({', '.join(names)}), about "
            f"{_size(view_bytes * count)} of {options.cache_dtype} {location}{cached}; "
            f"{_duration(duration)} to compute, once"
        )
        source = source_checksum(self.model, self.level, dtype, device)
        new_store = partial(FeatureStore, dtype=dtype, limit=max(1, limit // world), source=source, folder=folder)
        self._store = self._filled_store(views, new_store, stop_request)
        self._report_store(self._store)
        self._val_limit = free_memory() // 2 // world

    def _filled_store(
        self, views: Views, new_store: Callable[[], FeatureStore], stop_request: StopRequest
    ) -> FeatureStore:
        """Return the store of all views. With several processes each computes a share in the folder, then loads all."""
        assert self.level is not None
        store, processes, workers = new_store(), self.processes, self.plan.run.workers
        share = (processes.rank, processes.world) if store.folder else (0, 1)
        fill(
            store, self.model, views, self.level, workers=workers, share=share, stop_request=stop_request,
            reporter=self.reporter,
        )  # fmt: skip
        if share[1] == 1:
            return store
        processes.wait()
        store = new_store()
        fill(store, self.model, views, self.level, workers=workers, cached_only=True, reporter=self.reporter)
        return store

    def train_loader(self, table: AnnotationTable, *, single_process: bool = False) -> Any:
        """Return shuffled batches of ``table``, prepared before; ``single_process``: not divided among processes."""
        plan, processes = self.plan, Processes() if single_process else self.processes
        batch, workers, seed = plan.training.batch_size, plan.run.workers, plan.run.seed
        if self._store is not None and self.level is not None:
            return FeatureLoader(
                self._store, self.model, self._views(table), self.level, batch,
                seed=seed, workers=workers, rank=processes.rank, world=processes.world,
            )  # fmt: skip
        augment = preset(plan.training.augment, self.task)
        decoded = self._decoded(table)
        dataset = Dataset(table, self.model.preprocessing, task=self.task, augment=augment, seed=seed, decoded=decoded)
        return data_loader(
            dataset, batch, shuffle=True, seed=seed, workers=workers, pin=self._on_gpu,
            rank=processes.rank, world=processes.world,
        )  # fmt: skip

    def val_loader(self, table: AnnotationTable, *, single_process: bool = False) -> Any:
        """Return ordered batches without augmentation; ``single_process``: not divided among processes."""
        plan, processes = self.plan, Processes() if single_process else self.processes
        decoded = None if self._store else self._decoded(table)
        dataset = Dataset(table, self.model.preprocessing, task=self.task, decoded=decoded)
        loader = data_loader(
            dataset, plan.training.batch_size, workers=plan.run.workers, pin=self._on_gpu,
            rank=processes.rank, world=processes.world,
        )  # fmt: skip
        if self._store is None or self.level is None:
            return loader
        return EvaluationFeatures(self.model, loader, self.level, self._val_limit)

    @property
    def _on_gpu(self) -> bool:
        return next(self.model.parameters()).device.type == "cuda"

    def _decoded(self, table: AnnotationTable) -> DecodedImages | None:
        """Return a store for the decoded images of ``table``; None if they are not cached."""
        limit = int(self.plan.cache.decoded_limit * GB)
        if self.folder is None or not limit:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        return DecodedImages(table, self.model.preprocessing, self.folder, limit=limit)

    def _views(self, table: AnnotationTable) -> Views:
        return Views(table, self.model.preprocessing, task=self.task, views=self.views, seed=self.plan.run.seed)

    def _report_store(self, store: FeatureStore) -> None:
        if store.folder is not None and (store.reused or store.corrupt):
            corrupt = f", {store.corrupt} corrupt ones were computed again" if store.corrupt else ""
            self.reporter.line(f"  {store.reused} of {len(store)} were in {store.folder} already{corrupt}")
        if store.full:
            self.reporter.line(
                f"  {len(store)} are cached; the others are computed in each step (--cache-limit; no file is removed)"
            )


def _level(cache: str, model: Model) -> str | None:
    """Return the deepest level at which features can be cached; None without a cache."""
    levels = model.levels()
    if cache == "off" or (cache == "auto" and not levels):
        return None
    if not levels:
        raise DataError(f"--cache {cache}: only features of a frozen backbone can be cached; add --freeze backbone")
    return levels[0]


def _measured_features(model: Model, views: Views, level: str, dtype: torch.dtype) -> tuple[str, int, float]:
    """Return the level to cache, and for the largest of a few images the bytes of one view's features and the seconds
    to compute them."""
    rows = range(0, len(views), max(1, len(views) // 4))
    image = max((views.sample(row, 0)[0] for row in rows), key=lambda tensor: tensor.numel())
    image = image.to(next(model.parameters()).device)
    sizes, seconds = {}, 0.0
    for name in model.levels():
        model.frozen_features([image], name, alone=True)
        began = time.perf_counter()
        features = model.frozen_features([image], name, alone=True)[0]
        seconds = time.perf_counter() - began if name == level else seconds
        sizes[name] = features.with_maps(dtype).nbytes
    if sizes[level] > MAX_NECK_RATIO * sizes.get("backbone", sizes[level]):
        level = "backbone"
    return level, sizes[level], seconds


def _cache_location(options: CacheOptions, cache: str, total: int, world: int) -> tuple[str, int, Path | None]:
    """Return the location as text, the limit in bytes, and the folder; None for memory."""
    limit = None if options.cache_limit is None else int(options.cache_limit * GB)
    memory = limit or free_memory() // 2
    if cache == "memory" or (cache == "auto" and world == 1 and total <= memory):
        return "in memory", memory, None
    folder = Path(options.cache_dir) if options.cache_dir else default_folder()
    if limit is None:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        limit = min(DISK_LIMIT, shutil.disk_usage(existing).free // 2)
    return f"in {folder}", limit, folder


def default_folder() -> Path:
    """Return ``~/.cache/detseg/features``, or the same below ``XDG_CACHE_HOME``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detseg" / "features"


def _size(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.3g} MB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
