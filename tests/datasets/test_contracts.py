"""A dataset class from elsewhere that states the same as this project's datasets works as they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations.builder import TableBuilder
from detseg.annotations.table import AnnotationTable
from detseg.classes import ClassMap, LabelField, joined
from detseg.datasets import Dataset, LabelledImages, SampleKey, data_loader
from detseg.datasets.contracts import has_ground_truth_table, takes_sample_keys
from detseg.datasets.keras_adapter import keras_dataset
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.errors import DataError
from detseg.preprocess import Preprocessing


class PlainKeys:
    """A dataset from elsewhere: no base class, and nothing stated. The image is the key itself."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Any) -> tuple[Any, dict[str, Any]]:
        return key, {}


class EpochKeys(PlainKeys):
    takes_sample_keys = True


class Wrapper:
    """Passes every attribute on to another dataset."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        return self.dataset[key]


def keys_of_epoch(dataset: Any, epoch: int) -> list[Any]:
    loader = data_loader(dataset, 2, shuffle=True, seed=1)
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [image for images, _ in loader for image in images]


def test_a_dataset_that_takes_sample_keys_gets_the_epoch() -> None:
    keys = keys_of_epoch(EpochKeys(), 3)
    assert all(isinstance(key, SampleKey) and key.epoch == 3 for key in keys)
    plain = keys_of_epoch(PlainKeys(), 3)  # control
    assert [type(key) for key in plain] == [int] * 4
    assert plain == [key.index for key in keys]


def test_a_wrapper_states_nothing_by_accident(make_table: Callable[..., AnnotationTable]) -> None:
    dataset = Dataset(make_table([(8, 8)] * 4, [[]] * 4), Preprocessing(8, 0), task="detect")
    assert takes_sample_keys(dataset)
    assert has_ground_truth_table(dataset)
    wrapper = Wrapper(dataset)
    assert wrapper.takes_sample_keys  # control: found on the instance
    assert not takes_sample_keys(wrapper)
    assert not has_ground_truth_table(wrapper)
    assert keys_of_epoch(Wrapper(EpochKeys()), 0) == keys_of_epoch(PlainKeys(), 0)


def test_every_dataset_of_this_project_takes_sample_keys(make_table: Callable[..., AnnotationTable]) -> None:
    labelled = LabelledImages([], Preprocessing(8, 0), classes=["a", "b"])
    assert takes_sample_keys(labelled)
    assert takes_sample_keys(RenderedScenes(1, (32, 32)))
    assert not takes_sample_keys(torch.utils.data.Subset(labelled, []))  # control


def test_ground_truth_tables(make_table: Callable[..., AnnotationTable]) -> None:
    table = make_table([(8, 8)] * 2, [[]] * 2)
    assert Dataset(table, Preprocessing(8, 0), task="detect").ground_truth_table() is table
    labels = LabelledImages([None] * 3, Preprocessing(8, 0), classes=["a", "b"]).ground_truth_table()  # not opened
    assert (labels.class_map.names, len(labels), labels.label_fields) == (("a", "b"), 0, ())
    scenes = RenderedScenes(2, (32, 48), seed=1)
    assert len(scenes.ground_truth_table()) == 2
    geometry = scenes.preprocessing.geometry((32, 48))
    assert geometry.resized_hw == geometry.original_hw == (32, 48)


def test_the_first_batch_is_in_the_order_of_the_rows() -> None:
    loader = data_loader(EpochKeys(), 3, shuffle=True, seed=1)  # type: ignore[arg-type]
    assert loader.first_batch()[0] == (0, 1, 2)
    assert [key.index for key in next(iter(loader))[0]] != [0, 1, 2]  # control
    assert data_loader(PlainKeys(), 9).first_batch()[0] == (0, 1, 2, 3)  # type: ignore[arg-type]


class OwnClasses:
    """Grey images of two classes, indexed with integers."""

    task = "classify"
    preprocessing = Preprocessing(min_size=8, max_size=0, crop=8)

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.keys.append(key)
        index = key.index if isinstance(key, SampleKey) else key
        return torch.full((3, 8, 8), 60 * index, dtype=torch.uint8), {"class_index": torch.tensor(index % 2)}


def test_a_keras_dataset_of_another_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pytest.importorskip("keras")
    dataset = OwnClasses()
    images, classes = keras_dataset(dataset, 3)[1]
    assert images.shape == (1, 8, 8, 3)
    assert np.allclose(images, 180 / 255)
    assert classes.tolist() == [1]
    assert dataset.keys == [3]

    class WithFields(OwnClasses):
        def ground_truth_table(self) -> AnnotationTable:
            return two_fields()

    with pytest.raises(DataError, match="Keras needs one class per image"):
        keras_dataset(WithFields(), 3)


def two_fields() -> AnnotationTable:
    fields = (LabelField("colour", ClassMap(("red", "blue"))), LabelField("size", ClassMap(("small", "large"))))
    return TableBuilder(joined(fields), "", source="own", label_fields=fields).build()


def test_control_a_table_without_fields_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pytest.importorskip("keras")

    class WithTable(OwnClasses):
        def ground_truth_table(self) -> AnnotationTable:
            return TableBuilder(ClassMap(("a", "b")), "", source="own").build()

    assert len(keras_dataset(WithTable(), 3)) == 2
