"""Each image in a few fixed views, so that what a frozen network makes of them can be computed once and kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch.utils.data

from detseg.annotations.table import AnnotationTable
from detseg.datasets.dataset import Dataset, Sample, Task
from detseg.datasets.sampler import SampleKey
from detseg.preprocess import Preprocessing
from detseg.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from detseg.datasets.augment import Augment

VIEW_SEED = 0
"""Views are the same in every run, whatever its seed, so that runs can share what was computed for them."""


class ViewKey(NamedTuple):
    """One view of one record.

    Attributes:
        record: row in the full table, which subsets keep.
        view: number of the view.
    """

    record: int
    view: int


class Views(torch.utils.data.Dataset[Sample | tuple[ViewKey, None]]):
    """The samples of a table, each time in one of a few fixed views.

    View v of a record is a function of (v, record); which one is shown, of (seed, epoch, record, occurrence).

    Args:
        table, preprocessing, task: as of :class:`Dataset`.
        views: what each view does; None shows the image as it is.
        seed: the run's seed, >= 0.
    """

    def __init__(
        self,
        table: AnnotationTable,
        preprocessing: Preprocessing,
        *,
        task: Task,
        views: Sequence[Augment | None],
        seed: int = 0,
    ) -> None:
        self.views = tuple(views)
        self.table, self.preprocessing, self.task, self.seed = table, preprocessing, task, seed
        self.kept: Collection[ViewKey] = ()
        self._of_view = [
            Dataset(table, preprocessing, task=task, augment=augment, seed=VIEW_SEED) for augment in self.views
        ]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, key: int | SampleKey) -> Sample | tuple[ViewKey, None]:
        """The sample of a row (epoch 0), or of a :class:`SampleKey`; errors as of :class:`Dataset`.

        Of a view in :attr:`kept` only its place, with None for the target: whoever keeps it has both.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(int(key))
        place = self.place(key)
        return (place, None) if place in self.kept else self.sample(key.index, place.view)

    def place(self, key: SampleKey) -> ViewKey:
        """Which view of which record a key shows."""
        record = int(self.table.record[key.index])
        return ViewKey(record, derive_seed(self.seed, key.epoch, record, key.occurrence) % len(self.views))

    def sample(self, index: int, view: int) -> Sample:
        """View ``view`` of row ``index``."""
        return self._of_view[view][SampleKey(index, epoch=view)]

    def subset(self, rows: Sequence[int]) -> Views:
        """The same views of some rows."""
        table = self.table.subset(rows)
        return Views(table, self.preprocessing, task=self.task, views=self.views, seed=self.seed)


class EveryView(torch.utils.data.Dataset[Sample]):
    """All views of all rows, one after the other: item i is view ``i % V`` of row ``i // V``."""

    def __init__(self, views: Views) -> None:
        self.of = views

    def __len__(self) -> int:
        return len(self.of) * len(self.of.views)

    def place(self, item: int) -> ViewKey:
        """Which view of which record item ``item`` is."""
        return ViewKey(int(self.of.table.record[item // len(self.of.views)]), item % len(self.of.views))

    def __getitem__(self, item: int) -> Sample:
        return self.of.sample(item // len(self.of.views), item % len(self.of.views))
