"""Any (image, class) dataset as samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from detseg.annotations import read
from detseg.datasets import Dataset, LabelledImages, SampleKey, data_loader, preset
from detseg.errors import DataError
from detseg.preprocess import Preprocessing

SMALL = Preprocessing(min_size=40, max_size=0, crop=36)
AS_IS = Preprocessing(min_size=4, max_size=0, crop=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name, count in (("ant", 3), ("bee", 2)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = generator.integers(0, 256, (48, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_an_empty_source_has_no_samples() -> None:
    dataset = LabelledImages([], SMALL, classes=["ant", "bee"])
    assert len(dataset) == 0
    assert list(data_loader(dataset, 2)) == []


def test_an_image_folder_has_the_same_samples_as_read(folder: Path) -> None:
    labelled, reference = LabelledImages(ImageFolder(folder), SMALL), Dataset(read(folder), SMALL, task="classify")
    assert labelled.class_map.names == reference.table.class_map.names == ("ant", "bee")
    assert len(labelled) == len(reference) == 5
    for index in range(5):
        (image, target), (expected, expected_target) = labelled[index], reference[index]
        assert torch.equal(image, expected)
        assert target["class_index"] == expected_target["class_index"]
        assert target["image_id"] == index


@pytest.mark.parametrize(
    "source",
    [
        Image.fromarray(PIXELS),
        PIXELS,
        torch.from_numpy(PIXELS).permute(2, 0, 1),
        ToTensor()(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1).to(torch.float64) / 255,
    ],
    ids=["PIL", "array", "uint8 tensor", "ToTensor", "float64 tensor"],
)
@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1)])
def test_every_image_type_returns_the_same_pixels(source: Any, label: Any) -> None:
    image, target = LabelledImages([(source, label)], AS_IS, classes=["a", "b"])[0]
    assert torch.equal(image, torch.from_numpy(PIXELS).permute(2, 0, 1))
    assert target["class_index"].item() == 1
    assert target["class_index"].dtype == torch.int64


@pytest.mark.parametrize(
    "gray", [PIXELS[..., 0], torch.from_numpy(PIXELS[..., 0])[None], Image.fromarray(PIXELS[..., 0])]
)
def test_gray_images_become_rgb(gray: Any) -> None:
    image, _ = LabelledImages([(gray, 0)], AS_IS, classes=["a", "b"])[0]
    assert torch.equal(image, torch.from_numpy(PIXELS[..., :1].repeat(3, 2)).permute(2, 0, 1))


@pytest.mark.parametrize("upright", [True, False])
def test_exif_orientation(tmp_path: Path, upright: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "ant").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "ant" / "a.png", exif=exif)
    preprocessing = Preprocessing(min_size=4, max_size=0, crop=4, apply_exif=upright)
    image, _ = LabelledImages(ImageFolder(tmp_path), preprocessing)[0]
    expected = np.rot90(PIXELS, -1) if upright else PIXELS
    assert np.array_equal(image.permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (PIXELS, r"list\[0\]: expected \(image, class\), got ndarray"),
        ((PIXELS, 2), r"list\[0\]: class_index 2 is outside"),
        ((PIXELS, -1), r"list\[0\]: class_index -1 is outside"),
        ((PIXELS, 1.0), "the class is 1.0; it must be an integer"),
        ((PIXELS, [0, 1]), r"the class is \[0, 1\]; it must be an integer"),
        ((torch.randn(3, 4, 4), 0), "remove Normalize"),
        ((torch.full((3, 4, 4), torch.nan), 0), "remove Normalize"),
        ((PIXELS.astype(np.int32), 0), r"of int32 \[4, 4, 3\]"),
        ((np.zeros((0, 4, 3), np.uint8), 0), r"of uint8 \[0, 4, 3\]"),
        ((torch.zeros(4, 5, 5), 0), r"\[4, 5, 5\]; remove the alpha channel"),
        (("a.png", 0), "the image is a str"),
    ],
)
def test_invalid_items_are_an_error(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledImages([item], AS_IS, classes=["a", "b"])[0]


def test_classes_are_those_of_the_source_or_of_the_dataset_of_a_subset(folder: Path) -> None:
    subset = torch.utils.data.Subset(ImageFolder(folder), [4, 0])
    assert LabelledImages(subset, SMALL).class_map.names == ("ant", "bee")
    assert [int(LabelledImages(subset, SMALL)[i][1]["class_index"]) for i in range(2)] == [1, 0]
    with pytest.raises(DataError, match=r"list has no classes; specify them"):
        LabelledImages([], SMALL)


def test_indices_outside_are_index_errors(folder: Path) -> None:
    dataset = LabelledImages(ImageFolder(folder), SMALL)
    assert len([sample for sample in dataset]) == 5  # noqa: C416  (iterates by index until IndexError)
    with pytest.raises(IndexError, match="5 items, so index -1 does not exist"):
        dataset[-1]


def test_augmentation_is_a_function_of_seed_epoch_and_index(folder: Path) -> None:
    def dataset(seed: int, epoch: int) -> list[torch.Tensor]:
        dataset = LabelledImages(ImageFolder(folder), SMALL, augment=preset("light", "classify"), seed=seed)
        loader = data_loader(dataset, 2)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        assert torch.equal(next(iter(loader))[0][0], dataset[SampleKey(0, epoch)][0])
        return [image for images, _ in loader for image in images]

    def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    assert same(dataset(0, 1), dataset(0, 1))
    assert not same(dataset(0, 1), dataset(0, 2))
    assert not same(dataset(0, 1), dataset(1, 1))
