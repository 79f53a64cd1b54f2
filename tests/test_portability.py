"""What only POSIX or Linux has is not needed: the same functions without it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import read
from detseg.datasets import Dataset, data_loader, decoded_images, loader
from detseg.datasets.decoded_images import DecodedImages
from detseg.preprocess import Preprocessing
from detseg.runtime import machine
from detseg.runtime.files import write_text
from detseg.synthetic.demo.render import render

PREPROCESSING = Preprocessing(40, 60)


def test_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.available_cores() == os.cpu_count()
    monkeypatch.setattr(machine, "Path", lambda *parts: Path("/nonexistent", *parts[1:]))
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert machine.free_memory() == machine.ASSUMED_MEMORY


def test_a_file_is_written_without_a_sync_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **named: opened.append(str(path)) or real(path, *rest, **named))
    write_text(tmp_path / "a", "a")
    assert str(tmp_path) in opened, "control: on POSIX the folder is synced"
    opened.clear()
    monkeypatch.delattr(os, "O_DIRECTORY")
    write_text(tmp_path / "b", "b")
    assert (tmp_path / "b").read_text() == "b"
    assert str(tmp_path) not in opened


def test_loaders_without_a_signal_mask_and_shared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path / "data", train=2, val=1)
    table = read(tmp_path / "data")
    expected = Dataset(table, PREPROCESSING, task="detect")
    monkeypatch.setattr(loader, "HAS_SIGNAL_MASK", False)
    monkeypatch.setattr(decoded_images, "IS_SUPPORTED", False)
    decoded = DecodedImages(table, PREPROCESSING, tmp_path)
    dataset = Dataset(table, PREPROCESSING, task="detect", decoded=decoded)
    batches = [images for images, _ in data_loader(dataset, 1, workers=1, context="spawn")]
    assert len(batches) == len(table)
    for row, (image,) in enumerate(batches):
        assert np.array_equal(image.numpy(), expected[row][0].numpy())
    assert (decoded.rows, decoded.get(0)) == (0, None)
