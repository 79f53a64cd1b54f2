"""Batches do not depend on the number of workers, and no random numbers are repeated."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch

from detseg import datasets
from detseg.annotations.table import AnnotationTable
from detseg.datasets import Dataset, EpochSampler, SampleKey, collate_fn, data_loader
from detseg.datasets.augment import preset
from detseg.preprocess import Preprocessing

Epochs = list[list[bytes]]


@pytest.fixture
def dataset(make_table: Callable[..., AnnotationTable]) -> Dataset:
    """Ten records of the same image, so that samples differ only by augmentation."""
    table = make_table([(40, 52)] * 10, [[[20, 20, 9, 6]]] * 10)
    table = replace(table, media=np.array([table.media[0]] * 10, np.dtypes.StringDType()))
    return Dataset(table, Preprocessing(40, 0), task="segment", augment=preset("strong", "segment"), seed=3)


class Unseeded(torch.utils.data.Dataset[Any]):
    """The usual dataset: one Compose, copied to every worker."""

    def __init__(self) -> None:
        self.transform = A.Compose([A.RandomBrightnessContrast(p=1), A.GaussNoise(p=1)])

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        image = np.full((40, 52, 3), 99, np.uint8)
        return torch.from_numpy(self.transform(image=image)["image"]), {"image_id": torch.tensor(index)}


def two_epochs(loader: Any) -> Epochs:
    """The pixels and masks of all samples, epoch by epoch, in the order of image ids."""
    epochs = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        samples = {}
        for images, targets in loader:
            for image, target in zip(images, targets, strict=True):
                tensors = [image, *(target[key] for key in sorted(target))]
                samples[int(target["image_id"])] = b"".join(value.numpy().tobytes() for value in tensors)
        assert len(samples) == 10
        epochs.append([samples[image_id] for image_id in sorted(samples)])
    return epochs


def count_different(epochs: Epochs, n_bytes: int = 3 * 40 * 52) -> int:
    """Number of different images among the twenty."""
    return len({sample[:n_bytes] for epoch in epochs for sample in epoch})


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("workers", "context"),
    [(1, "fork"), (4, "fork"), (1, "spawn"), pytest.param(4, "spawn", marks=pytest.mark.slow)],
)
def test_same_batches_with_any_number_of_workers(dataset: Dataset, workers: int, context: str) -> None:
    reference = two_epochs(data_loader(dataset, 3, shuffle=True, seed=1))
    assert count_different(reference) == 20  # different between samples and between epochs
    assert two_epochs(data_loader(dataset, 3, shuffle=True, seed=1, workers=workers, context=context)) == reference


def test_control_unseeded_albumentations_repeats() -> None:
    """The check above fails for a Compose without seeding: two workers use the same random numbers."""
    loader = data_loader(Unseeded(), 5, workers=2, context="fork")  # type: ignore[arg-type]
    assert count_different(two_epochs(loader)) < 20


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [key.index for key in EpochSampler(50, seed=seed, shuffle=True, epoch=epoch)]

    sampler = EpochSampler(50, seed=4, shuffle=True)
    runs = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        runs.append([key.index for key in sampler])
        assert sorted(runs[-1]) == list(range(50))
        assert {key.epoch for key in sampler} == {epoch}
    assert [order(4, epoch) for epoch in range(3)] == runs  # resumed equals uninterrupted
    assert len({tuple(run) for run in [*runs, order(5, 0)]}) == 4


@pytest.mark.parametrize("n", [0, 1, 5])
def test_unshuffled_order(n: int) -> None:
    sampler = EpochSampler(n, epoch=2)
    assert list(sampler) == [SampleKey(i, 2, 0) for i in range(n)]
    assert len(sampler) == n


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (10, [10]), (64, [10])])
def test_last_batch_may_be_smaller(dataset: Dataset, batch_size: int, sizes: list[int]) -> None:
    loader = data_loader(dataset, batch_size)
    assert [len(images) for images, _ in loader] == sizes
    assert len(loader) == len(sizes)


class TutorialDataset(torch.utils.data.Dataset[Any]):
    """As in the PyTorch tutorials: indexed with integers, returns any image."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[int, dict[str, int]]:
        assert type(index) is int
        return index, {"image_id": index}


@pytest.mark.parametrize("workers", [0, 2])
def test_other_datasets_are_indexed_with_integers(workers: int) -> None:
    loader = data_loader(TutorialDataset(), 2, workers=workers, context="fork")
    assert [images for images, _ in loader] == [(0, 1), (2, 3), (4,)]
    shuffled = data_loader(TutorialDataset(), 5, shuffle=True, seed=2)
    order = [key.index for key in EpochSampler(5, seed=2, shuffle=True)]
    assert list(next(iter(shuffled))[0]) == order


class WorkerState(TutorialDataset):
    def __getitem__(self, index: int) -> Any:
        handlers = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
        return cv2.getNumThreads(), torch.get_num_threads(), handlers == (signal.SIG_IGN,) * 2


def test_workers_use_one_thread_and_ignore_signals() -> None:
    loader = data_loader(WorkerState(), 5, workers=1, context="fork")
    cv2_threads, torch_threads, ignored = next(iter(loader))
    assert set(cv2_threads) <= {0, 1}
    assert set(torch_threads) == {1}
    assert all(ignored)
    assert loader.persistent_workers


def test_collate_fn_as_in_the_tutorial() -> None:
    assert datasets.collate_fn([]) == ()
    assert collate_fn([("a", 1)]) == (("a",), (1,))
    assert collate_fn([("a", 1), ("b", 2)]) == (("a", "b"), (1, 2))
