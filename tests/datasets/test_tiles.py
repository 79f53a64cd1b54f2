"""Tiles as samples: objects that a tile cuts, tiles without objects, randomness, decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import detseg.datasets.dataset as dataset_module
from detseg.annotations import AnnotationTable
from detseg.datasets import Dataset, data_loader, preset
from detseg.datasets.decoded_images import DecodedImages
from detseg.datasets.sampler import SampleKey
from detseg.datasets.tile_samples import TileChoice, TileSamples, view_counts
from detseg.datasets.views import Views
from detseg.errors import DataError
from detseg.keypoints import KeypointSchema
from detseg.preprocess import Preprocessing
from detseg.tiling import Tiling

TILES = Preprocessing(64, 107, tiling=Tiling(64, 0.2, whole_image=False))
WHOLE = replace(TILES, tiling=None)
CHOICE = TileChoice(min_visible=0.4, empty_tiles=0.25)
SIZE_HW = (64, 115)
"""Two tiles: columns 0 to 64 and 51 to 115."""

MakeTable = Callable[..., AnnotationTable]


def crop(table: AnnotationTable, task: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sample of the whole image, not resized."""
    size = min(table[0].size_hw)
    return Dataset(table, Preprocessing(size, 0), task=task)[0]  # type: ignore[arg-type]


def test_the_samples_are_the_tiles_of_each_image_in_order(make_table: MakeTable) -> None:
    table = make_table([SIZE_HW, (40, 50), (64, 200)], [[(5, 5, 10, 10)], [], [(5, 5, 10, 10)]])
    dataset = Dataset(table, TILES, task="detect")
    samples = [dataset[i] for i in range(len(dataset))]
    assert [int(target["image_id"]) for _, target in samples] == [100, 100, 101, 102, 102, 102, 102]
    assert [int(target["tile"]) for _, target in samples] == [0, 1, 0, 0, 1, 2, 3]
    assert [tuple(image.shape[1:]) for image, _ in samples] == [(64, 64), (64, 64), (40, 50), *[(64, 64)] * 4]
    assert view_counts(table, TILES).tolist() == [2, 1, 4]
    assert view_counts(table, WHOLE).tolist() == [1, 1, 1]
    assert "7 tiles of 3 images" in repr(dataset)
    pixels = crop(table, "detect")[0]
    assert torch.equal(samples[1][0], pixels[:, :, 51:])
    with pytest.raises(IndexError):
        dataset[7]


@pytest.mark.parametrize(
    ("box", "left", "right"),
    [
        ((5, 5, 10, 20), (5, 5, 15, 25), None),
        ((52, 5, 10, 20), (52, 5, 62, 25), (1, 5, 11, 25)),
        ((50, 5, 20, 20), (50, 5, 64, 25), (0, 5, 19, 25)),  # 14 and 19 of 20 columns are visible
        ((46, 5, 8, 20), (46, 5, 54, 25), None),  # 3 of 8 columns: ignored on the right
        ((60, 5, 40, 20), None, (9, 5, 49, 25)),
        ((2, 5, 110, 20), (2, 5, 64, 25), (0, 5, 61, 25)),  # larger than a tile
    ],
)
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_cut_object_is_clipped_or_ignored(
    task: Any, box: tuple[int, ...], left: tuple[int, ...] | None, right: tuple[int, ...] | None, make_table: MakeTable
) -> None:
    x, y, width, height = box
    ring = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)
    table = make_table([SIZE_HW], [[ring if task == "segment" else box]])
    dataset = Dataset(table, TILES, task=task, tiles=TileChoice(min_visible=0.4))
    for tile, expected in enumerate((left, right)):
        _, target = dataset[tile]
        assert target["boxes"].tolist() == ([] if expected is None else [list(expected)])
        area = 0 if expected is None else (expected[2] - expected[0]) * (expected[3] - expected[1])
        assert target["area"].sum() == pytest.approx(area)
        if task == "segment":
            whole = crop(table, task)[1]["masks"]
            part = whole[:, :, :64] if tile == 0 else whole[:, :, 51:]
            assert torch.equal(target["masks"], part if expected else part[:0])


@pytest.mark.parametrize("tile", [48, 64, 100])
def test_masks_of_tiles_are_those_of_the_resized_image(tile: int, make_table: MakeTable) -> None:
    """Of polygons and of RLE, at any scale."""
    table = make_table([(90, 150)], [[[40, 40, 30, 25], [100, 50, 20, 30], [75, 45, 60, 8]]])
    preprocessing = Preprocessing(64, 0, tiling=Tiling(tile, 0.2, whole_image=False))
    dataset = Dataset(table, preprocessing, task="segment")
    whole_hw = dataset.geometry(0).resized_hw
    masks = dataset_module.rasterize_window(table[0].segmentations, (90, 150), whole_hw, (0, 0), whole_hw)[0]  # type: ignore[arg-type]
    for index in range(len(dataset)):
        geometry, (_, target) = dataset.geometry(index), dataset[index]
        (top, left), (height, width) = geometry.crop_yx, geometry.network_hw
        parts = masks[:, top : top + height, left : left + width]
        parts = parts[parts.any(axis=(1, 2))]
        np.testing.assert_array_equal(target["masks"].numpy(), parts)
        np.testing.assert_array_equal(target["area"].numpy(), parts.sum(axis=(1, 2)))


def test_an_object_with_its_pixels_elsewhere_is_left_out_but_a_tiny_one_is_not(make_table: MakeTable) -> None:
    corner = np.array([[2, 2], [112, 2], [2, 10]], np.float64)  # a triangle: the right tile has little of it
    thin = np.array([[52, 2], [110, 2], [110, 2.2]], np.float64)
    table = make_table([SIZE_HW], [[corner, [80.5, 40.5, 0.1, 0.1], thin]])
    _, target = Dataset(table, TILES, task="segment")[1]
    assert (target["masks"].sum(dim=(1, 2)) > 0).all()
    assert [29.0, 40.0, 30.0, 41.0] in target["boxes"].tolist()


def test_keypoints_outside_of_a_tile_are_not_visible(make_table: MakeTable) -> None:
    points = np.array([[[20, 10, 2], [60, 20, 1], [100, 30, 2], [0, 0, 0]]], np.float64)
    schema = KeypointSchema(("a", "b", "c", "d"))
    table = make_table([SIZE_HW], [[(5, 5, 105, 30)]], keypoints=points, keypoint_schema=schema)
    dataset = Dataset(table, TILES, task="keypoints")
    assert dataset[0][1]["keypoints"].tolist() == [[[20, 10, 2], [60, 20, 1], [0, 0, 0], [0, 0, 0]]]
    assert dataset[1][1]["keypoints"].tolist() == [[[0, 0, 0], [9, 20, 1], [49, 30, 2], [0, 0, 0]]]


def test_crowds_and_ignored_objects_are_not_objects(make_table: MakeTable) -> None:
    table = make_table([SIZE_HW], [[(5, 5, 10, 10), (90, 5, 10, 10)]], crowd=[0], ignore=[1])
    samples = TileSamples(table, TILES)
    assert (samples.total, samples.empty) == (2, 2)
    assert all(not len(Dataset(table, TILES, task="detect")[i][1]["boxes"]) for i in range(2))


def test_epochs_use_other_tiles_without_objects(make_table: MakeTable) -> None:
    table = make_table([(64, 64 + 51 * 8), (64, 64 + 51 * 7)], [[(5, 5, 10, 10)], []])  # 9 and 8 tiles
    samples = TileSamples(table, TILES, TileChoice(0.4, 0.25), seed=3)
    assert (samples.total, samples.empty, len(samples)) == (17, 16, 5)
    assert samples.line(2) == "5 tiles of 2 images in an epoch: 1 with objects, 4 of 16 without (--empty-tiles)"
    used = [{samples.find(index, epoch) for index in range(1, 5)} for epoch in range(4)]
    assert len(set.union(*used)) == 16  # all of them, in four epochs
    assert all(samples.find(0, epoch) == (0, 0) for epoch in range(4))
    other = TileSamples(table, TILES, TileChoice(0.4, 0.25), seed=4)
    assert [other.find(i) for i in range(5)] != [samples.find(i) for i in range(5)]
    assert len(TileSamples(table.subset([1]), TILES, TileChoice(0.4, 0.0))) == 1  # never none at all
    assert len(TileSamples(table, TILES, TileChoice(0.4, 0.0))) == 1


def test_tiles_of_an_image_are_augmented_differently_and_always_in_the_same_way(make_table: MakeTable) -> None:
    table = make_table([(64, 400)], [[(5, 5, 10, 10)]])
    augment = preset("strong", "detect")
    dataset = Dataset(table, TILES, task="detect", augment=augment, seed=1)
    plain = Dataset(table, TILES, task="detect")
    key = SampleKey(3, epoch=2)
    assert torch.equal(dataset[key][0], dataset[key][0])
    assert not torch.equal(dataset[key][0], dataset[SampleKey(3, epoch=3)][0])
    flipped = [
        torch.equal(Dataset(table, TILES, task="detect", augment=preset("flip", "detect"), seed=1)[i][0], plain[i][0])
        for i in range(len(plain))
    ]
    assert len(set(flipped)) == 2  # some are flipped


def test_a_transform_does_not_change_the_image_of_other_tiles(make_table: MakeTable) -> None:
    table = make_table([(64, 64 + 51), (40, 50)], [[(5, 5, 10, 10)], []])

    def black(image: np.ndarray, target: Any, seed: int, **_: Any) -> tuple[np.ndarray, Any]:
        image[:] = 0
        return image, target

    for decoded in (None, DecodedImages(table, TILES, table.root)):
        dataset = Dataset(table, TILES, task="detect", augment=black, decoded=decoded)  # type: ignore[arg-type]
        assert all(not dataset[i][0].any() for i in (0, 1, 2, 2))
        dataset.augment = None
        assert all(dataset[i][0].any() for i in range(3))


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_is_decoded_once(
    cached: bool, make_table: MakeTable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For tiles in order; with the cache of decoded images for tiles in any order."""
    table = make_table([(64, 300), (64, 300)], [[(5, 5, 10, 10)], []])
    decoded = DecodedImages(table, TILES, tmp_path) if cached else None
    dataset = Dataset(table, TILES, task="detect", decoded=decoded)
    plain = [dataset[i] for i in range(len(dataset))]
    opened = []
    original = dataset_module.EncodedImage
    monkeypatch.setattr(dataset_module, "EncodedImage", lambda *a, **k: opened.append(a) or original(*a, **k))
    decoded = DecodedImages(table, TILES, tmp_path) if cached else None
    dataset = Dataset(table, TILES, task="detect", decoded=decoded)
    order = [0, 6, 1, 7, 2, 8] if cached else range(len(dataset))
    for index in order:
        assert torch.equal(dataset[index][0], plain[index][0])
    assert len(opened) == 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_batches_do_not_depend_on_workers(orientation: int, make_table: MakeTable) -> None:
    table = make_table(
        [(150, 100), (64, 64), (90, 200)], [[[50, 60, 30, 40]], [], [[30, 30, 10, 10]]], orientation=orientation
    )
    batches = []
    for workers in (0, 2):
        augment = preset("light", "segment")
        dataset = Dataset(table, TILES, task="segment", augment=augment, seed=2, tiles=CHOICE)
        loader = data_loader(dataset, 2, shuffle=True, seed=2, workers=workers)
        loader.sampler.set_epoch(1)
        batches.append([target for _, targets in loader for target in targets])
    assert len(batches[0]) == len(batches[1]) > 3
    for first, second in zip(*batches, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_features_of_tiles_are_not_cached(make_table: MakeTable) -> None:
    with pytest.raises(DataError, match="features of tiles"):
        Views(make_table([(64, 64)], [[]]), TILES, task="detect", views=[None])
