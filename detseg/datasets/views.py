"""Show each image in a few fixed views, so that the features of a frozen network can be computed once and cached."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch.utils.data

from detseg.annotations.table import AnnotationTable
from detseg.datasets.dataset import Dataset, Sample, Task
from detseg.datasets.sampler import SampleKey
from detseg.errors import DataError
from detseg.preprocess import Preprocessing
from detseg.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment

VIEW_SEED = 0
"""Views are the same in every run, whatever its seed, so that runs can share cached features."""


class ViewKey(NamedTuple):
    """One view of one record.

    Attributes:
        record: row in the full table; subsets keep it.
        view: index of the view.
    """

    record: int
    view: int


class Views(torch.utils.data.Dataset[Sample]):
    """The samples of a table, each in one of a few fixed views.

    View v of a record is a function of (v, record); the choice of v is a function of (seed, epoch, record, occurrence).

    Args:
        table, preprocessing, task: as in :class:`Dataset`.
        views: the transforms of each view; None for the unchanged image.
        seed: the run's seed, >= 0.

    Raises:
        DataError: as in Dataset; or the preprocessing has tiles.
    """

    takes_sample_keys = True

    def __init__(
        self,
        table: AnnotationTable,
        preprocessing: Preprocessing,
        *,
        task: Task,
        views: Sequence[Augment | None],
        seed: int = 0,
    ) -> None:
        if preprocessing.tiling is not None:
            raise DataError("features of tiles are not cached; use whole images, or no cache (--cache off)")
        self.views = tuple(views)
        self.table, self.preprocessing, self.task, self.seed = table, preprocessing, task, seed
        self._datasets = [
            Dataset(table, preprocessing, task=task, augment=augment, seed=VIEW_SEED) for augment in self.views
        ]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample of a row (epoch 0), or of a :class:`SampleKey`; errors as in :class:`Dataset`."""
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        return self.sample(key.index, self.view_key(key).view)

    def view_key(self, key: SampleKey) -> ViewKey:
        """The record and view of a sample key."""
        record = int(self.table.record[key.index])
        return ViewKey(record, derive_seed(self.seed, key.epoch, record, key.occurrence) % len(self.views))

    def sample(self, index: int, view: int) -> Sample:
        """View ``view`` of row ``index``."""
        return self._datasets[view][SampleKey(index, epoch=view)]

    def subset(self, rows: Sequence[int]) -> Views:
        """The same views of some rows."""
        table = self.table.subset(rows)
        return Views(table, self.preprocessing, task=self.task, views=self.views, seed=self.seed)


class UncachedViews(torch.utils.data.Dataset[tuple[ViewKey, Sample | None]]):
    """The samples of ``views`` with their view keys; a sample that the caller has already is not loaded.

    Args:
        views: the samples.
        cached: views that the caller has.
    """

    takes_sample_keys = True

    def __init__(self, views: Views, cached: Collection[ViewKey]) -> None:
        self.views, self.cached = views, cached

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, key: int | SampleKey) -> tuple[ViewKey, Sample | None]:
        """The view of a row (epoch 0) or of a :class:`SampleKey`, and its sample; None if it is cached."""
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        view_key = self.views.view_key(key)
        return view_key, None if view_key in self.cached else self.views.sample(key.index, view_key.view)


class EveryView(torch.utils.data.Dataset[Sample]):
    """All views of all rows in order: item i is view ``i % V`` of row ``i // V``."""

    def __init__(self, views: Views) -> None:
        self.views = views

    def __len__(self) -> int:
        return len(self.views) * len(self.views.views)

    def view_key(self, item: int) -> ViewKey:
        """The record and view of item ``item``."""
        return ViewKey(int(self.views.table.record[item // len(self.views.views)]), item % len(self.views.views))

    def __getitem__(self, item: int) -> Sample:
        return self.views.sample(item // len(self.views.views), item % len(self.views.views))
