"""Data echoing: each image is decoded once for all its uses, whatever the workers, and an epoch starts at any batch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detseg.annotations import AnnotationTable, read
from detseg.datasets import Dataset, data_loader, preset
from detseg.datasets import dataset as dataset_module
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.echo import EchoLoader, EchoSampler
from detseg.datasets.sampler import EpochSampler, Shard
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

PREPROCESSING = Preprocessing(48, 80)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> AnnotationTable:
    """Seven images: the last group of three is smaller."""
    from detseg.synthetic.demo.render import render

    folder = tmp_path_factory.mktemp("echo") / "data"
    render(folder, train=7, val=1)
    return read(folder).subset(range(7))


def samples_of(table: AnnotationTable, **options: Any) -> Dataset:
    return Dataset(table, PREPROCESSING, task="segment", augment=preset("light", "segment"), **options)


def echo_loader(table: AnnotationTable, echo: int = 3, **options: Any) -> EchoLoader:
    return EchoLoader(samples_of(table, echoed=True, seed=5), 3, echo=echo, seed=5, **options)


def images_of(batches: list[Any]) -> list[list[int]]:
    return [[int(target["image_id"]) for target in targets] for _, targets in batches]


def assert_same(first: list[Any], second: list[Any]) -> None:
    assert len(first) == len(second)
    for (images, targets), (others, other_targets) in zip(first, second, strict=True):
        assert all(torch.equal(*pair) for pair in zip(images, others, strict=True))
        for target, other in zip(targets, other_targets, strict=True):
            assert all(torch.equal(value, other[name]) for name, value in target.items())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is decoded in this process."""
    counts: Counter[str] = Counter()
    decode = dataset_module._image

    def counted(record: Any, *args: Any) -> Any:
        counts[str(record.path)] += 1
        return decode(record, *args)

    monkeypatch.setattr(dataset_module, "_image", counted)
    return counts


def test_each_image_is_decoded_once_for_all_its_uses(table: AnnotationTable, decoded: Counter[str]) -> None:
    batches = list(echo_loader(table, 3))
    assert sorted(decoded.values()) == [1] * 7
    assert Counter(image for batch in images_of(batches) for image in batch) == dict.fromkeys(
        table.image_id.tolist(), 3
    )
    decoded.clear()
    for _ in range(3):
        list(data_loader(samples_of(table, seed=5), 3, shuffle=True, seed=5))
    assert sorted(decoded.values()) == [3] * 7, "control: three epochs without echo"


def test_a_group_has_each_image_once_in_each_batch_with_another_augmentation(table: AnnotationTable) -> None:
    loader = echo_loader(table, 2)
    batches = list(loader)
    assert len(batches) == len(loader) == 6
    names = images_of(batches)
    assert names[::2] == names[1::2]
    assert [len(batch) for batch in names] == [3, 3, 3, 3, 1, 1]
    differ = [
        not torch.equal(a, b)
        for (images, _), (others, _) in zip(batches[::2], batches[1::2], strict=True)
        for a, b in zip(images, others, strict=True)
    ]
    assert sum(differ) >= 5
    order = EpochSampler(7, seed=5, shuffle=True).order()
    assert [image for batch in names[::2] for image in batch] == table.image_id[order].tolist()


def test_workers_change_nothing(table: AnnotationTable) -> None:
    alone, several = echo_loader(table), echo_loader(table, workers=2)
    for epoch in (0, 1):
        alone.sampler.set_epoch(epoch)
        several.sampler.set_epoch(epoch)
        batches = list(alone)
        assert_same(batches, list(several))
        if epoch == 0:
            first = batches
    assert images_of(first) != images_of(batches), "control: another epoch, another order"


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 8])
def test_an_epoch_starts_at_any_batch(table: AnnotationTable, start: int) -> None:
    loader = echo_loader(table)
    loader.sampler.set_epoch(2)
    whole = list(loader)
    loader.sampler.set_epoch(2, skip=3 * start)
    assert_same(list(loader), whole[start:])


def test_the_groups_of_several_processes_are_disjoint() -> None:
    samplers = [
        EchoSampler(EpochSampler(10, seed=1, shuffle=True, shard=Shard(rank, 2, 2, even=True)), 2, 3) for rank in (0, 1)
    ]
    groups = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(group) for group in groups] == [2, 2]
    rows = [{key.index for group in part for batch in group for key in batch} for part in groups]
    assert rows[0] & rows[1] == set()


def test_a_repeated_image_has_a_new_augmentation_each_time() -> None:
    weights = np.array([100.0, 1e-6, 1e-6])
    sampler = EchoSampler(EpochSampler(3, shuffle=True, weights=weights), 2, 4)
    keys = [key for group in sampler for batch in group for key in batch]
    assert len(keys) == len(set(keys)) == 12
    assert len({key.index for key in keys}) < 3, "control: the weights repeat rows"


def test_what_has_no_effect_is_refused(table: AnnotationTable, tmp_path: Path) -> None:
    cache = DecodedImages(table, PREPROCESSING, tmp_path)
    plain = Dataset(table, PREPROCESSING, task="segment", echoed=True)
    for dataset, echo in (
        (samples_of(table, echoed=True), 1),
        (samples_of(table), 2),
        (samples_of(table, echoed=True, decoded=cache), 2),
        (plain, 2),
    ):
        with pytest.raises(DataError, match="it must be at least 2, with Dataset"):
            EchoLoader(dataset, 3, echo=echo)
