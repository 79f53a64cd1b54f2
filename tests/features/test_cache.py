"""The feature cache from outside: what it reports, where it lies, and that its loaders change no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detseg.annotations import AnnotationTable, read
from detseg.datasets import Dataset, Views, data_loader, fixed_views
from detseg.errors import DataError
from detseg.features import CacheSettings, FeatureCache
from detseg.features import location as location_module
from detseg.features.location import cache_location
from detseg.models import build_model, describe, freeze
from detseg.runtime.reporter import Event, Reporter
from detseg.runtime.signals import StopRequest


@pytest.fixture(scope="module")
def table() -> AnnotationTable:
    return read(Path(__file__).parents[2] / "data" / "demo").subset(range(0, 100, 25))


@pytest.fixture(scope="module")
def model(table: AnnotationTable) -> Any:
    torch.manual_seed(3)
    description = describe("fasterrcnn_mobilenet_v3_large_fpn", table.class_map, weights="none", image_size=64)
    return freeze_backbone(build_model(description))


def freeze_backbone(model: Any) -> Any:
    freeze(model, "backbone")
    return model


def filled(model: Any, table: AnnotationTable, **options: Any) -> tuple[FeatureCache, list[str]]:
    """A cache, and the lines that it reported."""
    events: list[Event] = []
    cache = FeatureCache(
        model, "detect", CacheSettings(**options), augment="flip", seed=5, reporter=Reporter(events.append)
    )
    cache.fill(table, StopRequest())
    return cache, [event.text for event in events if event.kind == "line"]


def test_the_training_batches_are_the_features_of_the_views(model: Any, table: AnnotationTable) -> None:
    cache, lines = filled(model, table, dtype=torch.float32, where="memory")
    assert lines[0].startswith("cache: backbone features of 4 images (original, flipped), about ")
    assert lines[0].endswith("MB of float32 in memory; 1 s to compute, once")
    assert len(lines) == 1
    views = Views(table, model.preprocessing, task="detect", views=fixed_views("flip", "detect", 0), seed=5)
    loader, expected = cache.train_loader(table, 2), data_loader(views, 2, shuffle=True, seed=5)
    different = 0
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        expected.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for (features, targets), (images, image_targets) in zip(loader, expected, strict=True):
            for feature, target, image, image_target in zip(features, targets, images, image_targets, strict=True):
                assert torch.equal(target["boxes"], image_target["boxes"])
                direct = model.frozen_features([image], "backbone", alone=True)[0]
                assert all(torch.equal(feature.maps[name], direct.maps[name]) for name in direct.maps)
                flipped = model.frozen_features([image.flip(-1)], "backbone", alone=True)[0]
                different += not all(torch.equal(feature.maps[name], flipped.maps[name]) for name in direct.maps)
    assert different == 8  # control: another view has other features
    first = [int(target["image_id"]) for target in loader.first_batch()[1]]
    assert first == [record.image_id for record in list(table)[:2]]


def test_validation_batches(model: Any, table: AnnotationTable) -> None:
    cache, _ = filled(model, table)
    loader = cache.val_loader(table, 3)
    expected = data_loader(Dataset(table, model.preprocessing, task="detect"), 3)
    for _ in range(2):
        for (features, targets), (images, image_targets) in zip(loader, expected, strict=True):
            direct = model.frozen_features(list(images), "backbone", alone=False)
            assert all(torch.equal(a.maps[n], b.maps[n]) for a, b in zip(features, direct, strict=True) for n in a.maps)
            assert [int(t["image_id"]) for t in targets] == [int(t["image_id"]) for t in image_targets]


def test_a_folder_and_a_limit_are_reported(model: Any, table: AnnotationTable, tmp_path: Path) -> None:
    _, first = filled(model, table, where="disk", folder=tmp_path)
    assert f"of float16 in {tmp_path}; " in first[0]
    assert len(first) == 1
    _, second = filled(model, table, where="disk", folder=tmp_path)
    assert second[1].startswith(f"  8 of 8 were in {tmp_path}")
    cache, limited = filled(model, table, where="memory", limit=50_000)
    assert "in memory, of which 0.05 MB are cached; " in limited[0]
    assert "are cached; the others are computed in each step" in limited[1]
    assert cache.is_filled


def test_without_a_cache_nothing_is_computed(model: Any, table: AnnotationTable) -> None:
    cache, lines = filled(model, table, where="off")
    assert (cache.level, cache.is_filled, lines) == (None, False, [])
    no_images, lines = filled(model, table.subset([]))
    assert (no_images.level, no_images.is_filled, lines) == ("backbone", False, [])
    for loader in (cache.train_loader, cache.val_loader, no_images.train_loader):
        with pytest.raises(DataError, match="the feature cache is empty; call fill"):
            loader(table, 2)


def test_a_cache_needs_a_frozen_backbone(table: AnnotationTable) -> None:
    trainable = build_model(describe("resnet18", table.class_map, weights="none", image_size=64))
    assert FeatureCache(trainable, "classify").level is None
    with pytest.raises(DataError, match="--cache disk: only features of a frozen backbone can be cached"):
        FeatureCache(trainable, "classify", CacheSettings("disk"))
    freeze(trainable, "backbone")
    assert FeatureCache(trainable, "classify", CacheSettings("disk")).level == "pooled"  # control


def test_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location_module, "free_memory", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default = tmp_path / "detseg" / "features"

    def choose(where: str, total: int, limit: int | None = None, world: int = 1) -> tuple[Path | None, int]:
        chosen = cache_location(where, total, limit=limit, folder=None, world=world)
        return chosen.folder, chosen.limit

    assert choose("auto", 500) == (None, 500)
    assert choose("auto", 501)[0] == default  # too large for half of the memory
    assert choose("auto", 500, world=2)[0] == default  # processes share a folder
    assert choose("auto", 600, limit=600) == (None, 600)
    assert choose("auto", 700, limit=600) == (default, 600)
    assert choose("memory", 10**6) == (None, 500)
    assert choose("disk", 1, limit=7) == (default, 7)
    assert 0 < choose("disk", 1)[1] <= location_module.DISK_LIMIT
