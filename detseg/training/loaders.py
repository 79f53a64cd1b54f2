"""Build the data loaders of a run: of images, or of cached features of its frozen parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, data_loader, preset
from detseg.datasets.balance import Weights, class_balanced_weights, repeat_factors
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.echo import EchoLoader
from detseg.datasets.video_frames import decode_in_order
from detseg.features import CacheSettings, FeatureCache
from detseg.features.level import MAX_NECK_RATIO
from detseg.features.location import DISK_LIMIT, GB, default_folder
from detseg.models import Model
from detseg.options.plan import Phase, Plan
from detseg.runtime.files import FULL, free_space
from detseg.runtime.processes import Processes
from detseg.runtime.reporter import Reporter, terminal
from detseg.runtime.signals import StopRequest
from detseg.training.tile_choice import choice_of

__all__ = ["DISK_LIMIT", "GB", "MAX_NECK_RATIO", "DataModule", "default_folder"]


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
        self.processes, self.reporter, self.folder = processes or Processes(), reporter or terminal(), folder
        self.batch_size, self.workers, self.seed = plan.training.batch_size, plan.run.workers, plan.run.seed
        self.augment = plan.training.augment
        self.cache = FeatureCache(
            model, self.task, _settings(plan, phase), augment=self.augment, seed=self.seed, workers=self.workers,
            processes=self.processes, reporter=self.reporter,
        )  # fmt: skip

    def prepare(self, train: AnnotationTable, stop_request: StopRequest) -> None:
        """Compute and cache the features of ``train``; first report their number, location and computing time.

        Raises:
            Interrupted: an exit was requested; features already on disk stay there.
        """
        self.cache.fill(train, stop_request)

    def train_loader(self, table: AnnotationTable, *, single_process: bool = False) -> Any:
        """Return shuffled batches of ``table``, prepared before; ``single_process``: not divided among processes."""
        processes = Processes() if single_process else self.processes
        if self.cache.is_filled:
            return self.cache.train_loader(table, self.batch_size, processes, weights=self._weights(table))
        dataset = Dataset(
            table, self.model.preprocessing, task=self.task, augment=preset(self.augment, self.task),
            seed=self.seed, decoded=self._decoded(table), tiles=choice_of(self.plan),
            echoed=self.plan.training.echo > 1,
        )  # fmt: skip
        if not single_process:
            decode_in_order(dataset, self.plan.training.epochs, self.reporter)
        if self.plan.training.echo > 1:
            return EchoLoader(
                dataset, self.batch_size, echo=self.plan.training.echo, seed=self.seed, workers=self.workers,
                pin=self._on_gpu, rank=processes.rank, world=processes.world, weights=self._weights(table),
            )  # fmt: skip
        return data_loader(
            dataset, self.batch_size, shuffle=True, seed=self.seed, workers=self.workers, pin=self._on_gpu,
            rank=processes.rank, world=processes.world, weights=self._weights(table),
        )  # fmt: skip

    def val_loader(self, table: AnnotationTable, *, single_process: bool = False) -> Any:
        """Return ordered batches without augmentation; ``single_process``: not divided among processes."""
        processes = Processes() if single_process else self.processes
        if self.cache.is_filled:
            return self.cache.val_loader(table, self.batch_size, processes)
        dataset = Dataset(table, self.model.preprocessing, task=self.task, decoded=self._decoded(table))
        return data_loader(
            dataset, self.batch_size, workers=self.workers, pin=self._on_gpu,
            rank=processes.rank, world=processes.world,
        )  # fmt: skip

    @property
    def _on_gpu(self) -> bool:
        return next(self.model.parameters()).device.type == "cuda"

    def _weights(self, table: AnnotationTable) -> Weights | None:
        """Return how often each image of ``table`` is drawn; None for equally often."""
        training = self.plan.training
        if training.balance == "repeat":
            return repeat_factors(table, training.repeat_threshold)
        return class_balanced_weights(table) if training.balance == "class" else None

    def _decoded(self, table: AnnotationTable) -> DecodedImages | None:
        """Return a store for the decoded images of ``table``; None if they are not cached."""
        limit = int(self.plan.cache.decoded_limit * GB)
        if self.folder is None or not limit:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        free = free_space(self.folder)
        limit = limit if free is None else min(limit, free // 4)  # of each split; the rest is for checkpoints
        try:
            return DecodedImages(table, self.model.preprocessing, self.folder, limit=limit)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.reporter.warning(f"warning: {self.folder}: decoded images are not cached ({error.strerror})")
            return None


def _settings(plan: Plan, phase: Phase) -> CacheSettings:
    options = plan.cache
    return CacheSettings(
        phase.cache,
        sampled_views=options.cached_views,
        dtype=getattr(torch, options.cache_dtype),
        limit=None if options.cache_limit is None else int(options.cache_limit * GB),
        folder=Path(options.cache_dir) if options.cache_dir else None,
    )
