"""What a dataset states about itself, and a loader offers: any class that does so works as this project's own do.

Looked up in the class, so that a wrapper that passes unknown attributes on to another dataset states nothing by
accident: its samples may differ from those of that dataset.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

from detseg.annotations.table import AnnotationTable
from detseg.preprocess import Preprocessing


class SampleKeyDataset(Protocol):
    """A dataset that is indexed with a :class:`~detseg.datasets.sampler.SampleKey`, which includes the epoch.

    Any other dataset of ``(image, target)`` is indexed with integers and uses its own random numbers.

    Attributes:
        takes_sample_keys: True.
    """

    takes_sample_keys: bool


class GroundTruthDataset(Protocol):
    """A dataset that states what predictions on its samples are compared with.

    The ground truth of any other dataset is read from its samples.
    """

    @property
    def task(self) -> str:
        """The task of the samples: "detect", "segment", "keypoints" or "classify"."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images of the table became those of the samples, which predictions refer to."""

    def ground_truth_table(self) -> AnnotationTable:
        """Return the images and instances, in original pixels; ``image_id`` as in the samples.

        With "classify" only the names are used, ``class_map`` and ``label_fields``: the classes are in the samples.
        """


class FirstBatchLoader(Protocol):
    """A loader whose steps can be timed.

    Any iterable over batches can be trained on; this method is for measurements before the training.
    """

    def first_batch(self) -> Any:
        """Return ``(images, targets)`` of the first rows of the data, independent of the loader's order."""


def takes_sample_keys(dataset: object) -> TypeGuard[SampleKeyDataset]:
    """Whether the class of ``dataset`` has ``takes_sample_keys = True``."""
    return bool(getattr(type(dataset), "takes_sample_keys", False))


def has_ground_truth_table(dataset: object) -> TypeGuard[GroundTruthDataset]:
    """Whether the class of ``dataset`` has a method ``ground_truth_table``."""
    return callable(getattr(type(dataset), "ground_truth_table", None))
