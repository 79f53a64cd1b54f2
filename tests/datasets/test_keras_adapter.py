"""Samples in Keras 3, with the torch backend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.datasets import LabelledImages, data_loader
from detseg.datasets.keras_adapter import keras_dataset
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

CROPPED = Preprocessing(min_size=8, max_size=0, crop=8)


def samples(count: int = 10, preprocessing: Preprocessing = CROPPED) -> LabelledImages:
    """Dark samples of class 0, bright ones of class 1."""
    generator = np.random.default_rng(0)
    source = [(generator.integers(0, 100, (8, 8, 3)).astype(np.uint8) + 150 * (i % 2), i % 2) for i in range(count)]
    return LabelledImages([(p.astype(np.uint8), c) for p, c in source], preprocessing, classes=["dark", "bright"])


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return pytest.importorskip("keras")


def test_batches_equal_the_data_loader(keras: Any) -> None:
    loader = data_loader(samples(), 4, shuffle=True, seed=3)
    batches = keras_dataset(samples(), 4, shuffle=True, seed=3)
    assert len(loader) == len(batches) == 3
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        order = []
        for index, (images, targets) in enumerate(loader):
            batch, classes = batches[index]
            assert batch.dtype == np.float32
            assert classes.dtype == np.int64
            np.testing.assert_array_equal(batch, torch.stack(images).permute(0, 2, 3, 1).numpy() / np.float32(255))
            assert classes.tolist() == [int(target["class_index"]) for target in targets]
            order += [int(target["image_id"]) for target in targets]
        assert order != sorted(order)
        batches.on_epoch_end()


def test_channels_first(keras: Any) -> None:
    batch, _ = keras_dataset(samples(3), 2, channels_first=True)[1]
    assert batch.shape == (1, 3, 8, 8)
    assert np.array_equal(batch[0], samples(3)[2][0].numpy() / np.float32(255))


def test_no_images_and_no_batches(keras: Any) -> None:
    assert len(keras_dataset(samples(0), 2)) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")  # torch and numpy 2, see pyproject.toml
def test_a_keras_model_learns(keras: Any) -> None:
    assert keras.backend.backend() == "torch"
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=loss, metrics=["accuracy"])
    batches = keras_dataset(samples(), 5, shuffle=True)
    before = model.evaluate(keras_dataset(samples(), 5), verbose=0)
    model.fit(batches, epochs=20, verbose=0)
    after = model.evaluate(keras_dataset(samples(), 5), verbose=0)
    assert after[0] < before[0]
    assert after[1] == 1.0
    assert batches.sampler.epoch >= 20


@pytest.mark.parametrize(
    ("preprocessing", "size", "message"),
    [(Preprocessing(8, 0), 2, "equal size; set a crop"), (CROPPED, 0, "batch size 0")],
)
def test_unsupported_arguments_are_an_error(keras: Any, preprocessing: Preprocessing, size: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        keras_dataset(samples(2, preprocessing), size)


def test_without_keras_the_message_states_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(DataError, match=r"pip install 'detseg\[keras\]'.*KERAS_BACKEND=torch"):
        keras_dataset(samples(), 2)
