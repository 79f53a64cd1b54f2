"""Images decoded once: the same samples with and without, in any worker, within a limit."""

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
def test_samples_are_the_same_with_and_without(
    table: AnnotationTable, tmp_path: Path, workers: int, context: str | None, name: str
) -> None:
    augment = preset(name, "segment")
    plain = Dataset(table, PREPROCESSING, task="segment", augment=augment)
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    kept = Dataset(table, PREPROCESSING, task="segment", augment=augment, decoded=decoded)
    found = list(samples(kept, workers=workers, context=context))
    assert len(found) == 2 * len(SIZES)
    assert all(equal(*pair) for pair in zip(samples(plain), found, strict=True))
    assert all(decoded.get(row) is not None for row in range(len(SIZES)))  # by workers, seen from here


def test_what_is_kept_is_not_decoded_again(table: AnnotationTable, tmp_path: Path) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    kept = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    before = [kept[row] for row in range(3)]
    for row in range(len(SIZES)):
        table[row].path.unlink()
    assert all(equal(before[row], kept[row]) for row in range(3))
    with pytest.raises(FileNotFoundError):
        kept[3]  # nobody asked for it while its file was there
    with pytest.raises(FileNotFoundError):
        Dataset(table, PREPROCESSING, task="segment")[0]


@pytest.mark.parametrize("rows", range(len(SIZES) + 1))
def test_a_limit_keeps_the_first_rows(table: AnnotationTable, tmp_path: Path, rows: int) -> None:
    geometries = [PREPROCESSING.geometry(size) for size in SIZES]
    limit = sum(3 * height * width for height, width in (geometry.network_hw for geometry in geometries[:rows]))
    for room in (limit, limit + 1):
        decoded = DecodedImages(table, PREPROCESSING, tmp_path, limit=room)
        kept = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
        first, second = list(samples(kept, epochs=1)), list(samples(kept, epochs=1))
        assert all(equal(*pair) for pair in zip(first, second, strict=True))
        assert [decoded.get(row) is not None for row in range(len(SIZES))] == [row < rows for row in range(len(SIZES))]
        assert (decoded.rows, decoded.size) == (rows, limit)


@pytest.mark.parametrize("orientation", [1, 6])
def test_orientation_and_crop_are_part_of_what_is_kept(make_table: Make, tmp_path: Path, orientation: int) -> None:
    table = make_table([(60, 80), (90, 60)], [[], []], class_index=[[2], [0]], orientation=orientation)
    preprocessing = Preprocessing(30, 0, crop=24)
    decoded = DecodedImages(table, preprocessing, tmp_path)
    kept = Dataset(table, preprocessing, task="classify", decoded=decoded)
    plain = Dataset(table, preprocessing, task="classify")
    for row in (0, 1, 0, 1, -1):
        assert equal(plain[row], kept[row])
    assert decoded.get(1).shape == (24, 24, 3)  # type: ignore[union-attr]


def test_augmentation_does_not_write_into_what_is_kept(table: AnnotationTable, tmp_path: Path) -> None:
    """Control: the view itself refuses to be written to."""

    def paint(image: np.ndarray, target: Any, seed: int, *, swaps: Any = (), landscape: Any = None) -> Any:
        image[:] = seed % 256
        return image, target

    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    kept = Dataset(table, PREPROCESSING, task="segment", augment=paint, decoded=decoded)  # type: ignore[arg-type]
    colours = {int(kept[SampleKey(2, epoch)][0][0, 0, 0]) for epoch in range(8)}
    assert len(colours) > 2
    plain = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    assert equal(plain[0], Dataset(table, PREPROCESSING, task="segment")[0])
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
        kept = decoded.get(row)
        assert kept is not None
        assert (kept == row + 1).all()
    assert decoded.get(2) is None


def test_nothing_is_left_in_the_folder(table: AnnotationTable, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    decoded = DecodedImages(table, PREPROCESSING, folder)
    Dataset(table, PREPROCESSING, task="segment", decoded=decoded)[0]
    assert not list(folder.iterdir())
    with pytest.raises(FileNotFoundError):
        DecodedImages(table, PREPROCESSING, tmp_path / "missing")


def test_a_full_disk_is_said_and_survived(
    table: AnnotationTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    kept, plain = (Dataset(table, PREPROCESSING, task="segment", decoded=one) for one in (decoded, None))
    kept[0]

    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.warns(UserWarning, match="no room to keep decoded images"):
        assert equal(plain[2], kept[2])
    monkeypatch.undo()
    assert equal(plain[3], kept[3])
    assert [decoded.get(row) is not None for row in range(5)] == [True, False, False, False, False]


def test_other_tables_are_refused_and_copies_keep_nothing(table: AnnotationTable, tmp_path: Path) -> None:
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    for other, preprocessing in ((copy.copy(table), PREPROCESSING), (table, Preprocessing(40, 60))):
        with pytest.raises(DataError, match="another table"):
            Dataset(other, preprocessing, task="segment", decoded=decoded)
    kept = Dataset(table, PREPROCESSING, task="segment", decoded=decoded)
    alone = pickle.loads(pickle.dumps(kept))
    assert equal(kept[0], alone[0])
    assert decoded.get(0) is not None
    assert alone.decoded.get(0) is None


def test_an_edited_file_shows_in_the_next_run_only(table: AnnotationTable, tmp_path: Path) -> None:
    kept = Dataset(table, PREPROCESSING, task="segment", decoded=DecodedImages(table, PREPROCESSING, tmp_path))
    before = kept[0]
    cv2.imwrite(str(table[0].path), np.zeros((*SIZES[0], 3), np.uint8))
    assert equal(before, kept[0])
    later = Dataset(table, PREPROCESSING, task="segment", decoded=DecodedImages(table, PREPROCESSING, tmp_path))
    assert not later[0][0].any()
