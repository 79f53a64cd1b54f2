"""The cache of decoded images does not change samples, works in all workers and respects its limit."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detseg.annotations.table import AnnotationTable
from detseg.datasets import Dataset, SampleKey, data_loader
from detseg.datasets.augment import preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

Make = Callable[..., AnnotationTable]
SIZES = [(60, 80), (81, 60), (96, 160), (31, 200), (64, 64)]
PREPROCESSING = Preprocessing(30, 60)


@pytest.fixture
def table(make_table: Make) -> AnnotationTable:
    return make_table(SIZES, [[[30, 20, 9, 7], [20, 15, 4, 4]], [], [[50, 40, 20, 20]], [], [[9, 9, 5, 5]]])


def equal(first: Any, second: Any) -> bool:
    return torch.equal(first[0], second[0]) and all(torch.equal(first[1][key], second[1][key]) for key in first[1])


def samples(dataset: Dataset, *, workers: int = 0, context: str | None = None, epochs: int = 2) -> Iterator[Any]:
    loader = data_loader(dataset, 2, shuffle=True, workers=workers, context=context)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for images, targets in loader:
            yield from zip(images, targets, strict=True)


@pytest.mark.parametrize(
    ("workers", "context", "name"),
    [
        (0, None, "none"),
        (0, None, "strong"),
        (2, "fork", "none"),
        (2, "fork", "strong"),
        pytest.param(2, "spawn", "none", marks=pytest.mark.slow),
    ],
)
def test_samples_are_the_same_with_and_without_cache(
    table: AnnotationTable, tmp_path: Path, workers: int, context: str | None, name: str
) -> None:
    augment = preset(name, "segment")
    uncached = Dataset(table, PREPROCESSING, task="segment", augment=augment)
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    cached = Dataset(table, PREPROCESSING, task="segment", augment=augment, decoded=decoded)
    cached_samples = list(samples(cached, workers=workers, context=context))
    assert len(cached_samples) == 2 * len(SIZES)
    assert all(equal(*pair) for pair in zip(samples(uncached), cached_samples, strict=True))
    assert all(decoded.get(row) is not None for row in range(len(SIZES)))  # cached by workers, visible in this process


def test_cached_images_are_not_decoded_again(table: AnnotationTable, tmp_path: Path) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    cached = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    before = [cached[row] for row in range(3)]
    for row in range(len(SIZES)):
        table[row].path.unlink()
    assert all(equal(before[row], cached[row]) for row in range(3))
    with pytest.raises(FileNotFoundError):
        cached[3]  # it was not requested while its file existed
    with pytest.raises(FileNotFoundError):
        Dataset(table, PREPROCESSING, task="segment")[0]


@pytest.mark.parametrize("rows", range(len(SIZES) + 1))
def test_only_the_first_rows_fit_a_limit(table: AnnotationTable, tmp_path: Path, rows: int) -> None:
    geometries = [PREPROCESSING.geometry(size) for size in SIZES]
    limit = sum(3 * height * width for height, width in (geometry.network_hw for geometry in geometries[:rows]))
    for max_bytes in (limit, limit + 1):
        decoded = DecodedImages(table, PREPROCESSING, tmp_path, limit=max_bytes)
        cached = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
        first, second = list(samples(cached, epochs=1)), list(samples(cached, epochs=1))
        assert all(equal(*pair) for pair in zip(first, second, strict=True))
        assert [decoded.get(row) is not None for row in range(len(SIZES))] == [row < rows for row in range(len(SIZES))]
        assert (decoded.rows, decoded.size) == (rows, limit)


@pytest.mark.parametrize("orientation", [1, 6])
def test_cached_images_are_oriented_and_cropped(make_table: Make, tmp_path: Path, orientation: int) -> None:
    table = make_table([(60, 80), (90, 60)], [[], []], class_index=[[2], [0]], orientation=orientation)
    preprocessing = Preprocessing(30, 0, crop=24)
    decoded = DecodedImages(table, preprocessing, tmp_path)
    cached = Dataset(table, preprocessing, task="classify", decoded=decoded)
    uncached = Dataset(table, preprocessing, task="classify")
    for row in (0, 1, 0, 1, -1):
        assert equal(uncached[row], cached[row])
    assert decoded.get(1).shape == (24, 24, 3)  # type: ignore[union-attr]


def test_augmentation_does_not_modify_cached_images(table: AnnotationTable, tmp_path: Path) -> None:
    """Control: the cached array is read-only."""

    def paint(image: np.ndarray, target: Any, seed: int, *, swaps: Any = (), landscape: Any = None) -> Any:
        image[:] = seed % 256
        return image, target

    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    cached = Dataset(table, PREPROCESSING, task="segment", augment=paint, decoded=decoded)  # type: ignore[arg-type]
    colours = {int(cached[SampleKey(2, epoch)][0][0, 0, 0]) for epoch in range(8)}
    assert len(colours) > 2
    unaugmented = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    assert equal(unaugmented[0], Dataset(table, PREPROCESSING, task="segment")[0])
    with pytest.raises(ValueError, match="read-only"):
        decoded.get(0)[:] = 0  # type: ignore[index]


def fill(decoded: DecodedImages, row: int, times: int) -> None:
    for _ in range(times):
        height, width = decoded.preprocessing.geometry(SIZES[row]).network_hw
        decoded.put(row, np.full((height, width, 3), row + 1, np.uint8))


def test_two_processes_may_write_one_row(table: AnnotationTable, tmp_path: Path) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(decoded, row, 50)) for row in (0, 0, 1, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for row in (0, 1):
        pixels = decoded.get(row)
        assert pixels is not None
        assert (pixels == row + 1).all()
    assert decoded.get(2) is None


def test_the_folder_stays_empty(table: AnnotationTable, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    decoded = DecodedImages(table, PREPROCESSING, folder)
    Dataset(table, PREPROCESSING, task="segment", decoded=decoded)[0]
    assert not list(folder.iterdir())
    with pytest.raises(FileNotFoundError):
        DecodedImages(table, PREPROCESSING, tmp_path / "missing")


def test_a_full_disk_causes_a_warning(table: AnnotationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    cached, uncached = (Dataset(table, PREPROCESSING, task="segment", decoded=cache) for cache in (decoded, None))
    cached[0]

    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="no space to cache decoded images"):
        assert equal(uncached[2], cached[2])
    monkeypatch.undo()
    assert equal(uncached[3], cached[3])
    assert [decoded.get(row) is not None for row in range(5)] == [True, False, False, False, False]


def test_other_tables_are_rejected_and_copies_cache_nothing(table: AnnotationTable, tmp_path: Path) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    for other, preprocessing in ((copy.copy(table), PREPROCESSING), (table, Preprocessing(40, 60))):
        with pytest.raises(DataError, match="another table"):
            Dataset(other, preprocessing, task="segment", decoded=decoded)
    cached = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    copied = pickle.loads(pickle.dumps(cached))
    assert equal(cached[0], copied[0])
    assert decoded.get(0) is not None
    assert copied.decoded.get(0) is None


def test_an_edited_file_is_read_in_the_next_run_only(table: AnnotationTable, tmp_path: Path) -> None:
    cached = Dataset(table, PREPROCESSING, task="segment", decoded=DecodedImages(table, PREPROCESSING, tmp_path))
    before = cached[0]
    cv2.imwrite(str(table[0].path), np.zeros((*SIZES[0], 3), np.uint8))
    assert equal(before, cached[0])
    later = Dataset(table, PREPROCESSING, task="segment", decoded=DecodedImages(table, PREPROCESSING, tmp_path))
    assert not later[0][0].any()
