"""The resize uses exactly torchvision's formula; the crop and the config."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import _resize_image_and_masks

from detseg.errors import DataError
from detseg.preprocess import Geometry, Preprocessing


@pytest.mark.parametrize(("min_size", "max_size"), [(800, 1333), (320, 640), (480, 800), (64, 107), (7, 9)])
def test_resized_size_equals_torchvision(min_size: int, max_size: int) -> None:
    rng = np.random.default_rng(0)
    sizes = [(480, 640), (427, 640), (333, 500), (1, 1), *rng.integers(1, 700, (40, 2)).tolist()]
    for height, width in sizes:
        image = torch.empty(1, height, width, device="meta")
        scale = min(min_size / min(height, width), max_size / max(height, width))
        if min(height, width) * scale < 1:
            continue  # torchvision raises if a side becomes 0; see the next test
        resized, _ = _resize_image_and_masks(image, min_size, max_size)
        resized_hw = Preprocessing(min_size, max_size).resized_hw((height, width))
        assert resized_hw == tuple(resized.shape[-2:]), (height, width)


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [((1, 1), (64, 64)), ((1, 2000), (1, 107)), ((2000, 1), (107, 1)), ((64, 64), (64, 64)), ((640, 480), (85, 64))],
)
def test_no_side_becomes_zero(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Preprocessing(64, 107).resized_hw(size_hw) == expected


@pytest.mark.parametrize("size_hw", [(1, 1), (224, 224), (300, 500), (501, 333), (17, 2001)])
def test_crop_is_inside_and_centred(size_hw: tuple[int, int]) -> None:
    preprocessing = Preprocessing(256, 0, crop=224)
    geometry = preprocessing.geometry(size_hw)
    (top, left), (height, width) = geometry.crop_yx, geometry.resized_hw
    assert geometry.network_hw == (224, 224)
    assert 0 <= height - 224 - 2 * top <= 1
    assert 0 <= width - 224 - 2 * left <= 1
    assert preprocessing.apply(np.zeros((*size_hw, 3), np.uint8), geometry).shape == (224, 224, 3)


def test_apply_resizes_only_if_the_size_differs() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    unchanged = Preprocessing.apply(image, Geometry((30, 40), (30, 40)))
    assert np.array_equal(unchanged, image)
    assert Preprocessing.apply(image, Geometry((30, 40), (60, 81))).shape == (60, 81, 3)


def test_json_round_trip() -> None:
    preprocessing = Preprocessing(320, 640, crop=224, mean=(0.1, 0.2, 0.3), apply_exif=False)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    "values", [{"min_size": 0}, {"max_size": -1}, {"min_size": 10, "crop": 11}, {"crop": -1}, {"colour": "BGR"}]
)
def test_invalid_values_are_rejected(values: dict[str, object]) -> None:
    with pytest.raises(DataError):
        Preprocessing(**values)  # type: ignore[arg-type]
