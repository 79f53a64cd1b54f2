"""One value range for a data set: from tags, the usual bit depths, or the values; deterministic, without outliers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from detseg.images import decode_image
from detseg.value_range import SAMPLED_IMAGES, find_value_range, has_deep_values

RNG = np.random.default_rng(0)


def written(folder: Path, images: list[np.ndarray], suffix: str = ".png", **tags: object) -> list[Path]:
    paths = [folder / f"{row}{suffix}" for row in range(len(images))]
    for path, values in zip(paths, images, strict=True):
        if suffix == ".tif" and values.ndim == 2:
            Image.fromarray(values).save(path, **tags)
        else:
            assert cv2.imwrite(str(path), values)
    return paths


def noise(low: int, high: int, count: int = 3, dtype: type = np.uint16, channels: int = 0) -> list[np.ndarray]:
    shape = (40, 50, channels) if channels else (40, 50)
    images = [RNG.integers(low, high + 1, shape).astype(dtype) for _ in range(count)]
    images[0].flat[:2] = low, high
    return images


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (3, 4090, (0, 4095)),
        (100, 16000, (0, 16383)),
        (0, 1023, (0, 1023)),
        (0, 65535, (0, 65535)),
        (20000, 65000, (0, 65535)),
        (0, 255, (0, 255)),
        (250, 1300, (250, 1300)),
        (7000, 9000, (7000, 9000)),
        (0, 32767, (0, 32767)),
        (5, 5, (5, 6)),
    ],
)
@pytest.mark.parametrize("channels", [0, 3])
def test_a_usual_bit_depth_if_the_values_fill_it_else_their_own_range(
    tmp_path: Path, low: int, high: int, expected: tuple[int, int], channels: int
) -> None:
    paths = written(tmp_path, noise(low, high, channels=channels))
    found = find_value_range(paths)
    assert found is not None
    assert found.range == expected
    assert (found.deep, found.shallow, found.kinds) == (3, 0, "16-bit")
    assert find_value_range(paths) == found


def test_tags_are_used_if_all_files_state_them_and_the_values_fit(tmp_path: Path) -> None:
    values = noise(500, 1700)
    for tags, expected in (
        ({280: 0, 281: 4095}, (0, 4095)),
        ({281: 65535}, (500, 1700)),  # control: the maximum of the type says nothing
        ({281: 1000}, (500, 1700)),  # control: contradicted by the values
        ({281: 30000}, (500, 1700)),  # control: the values fill less than a quarter
    ):
        found = find_value_range(written(tmp_path, values, ".tif", tiffinfo=tags))
        assert found is not None
        assert found.range == expected
        assert ("stated" in found.source) == (expected == (0, 4095))
    paths = written(tmp_path, values[:2], ".tif", tiffinfo={281: 4095}) + written(tmp_path, values)
    assert (found := find_value_range(paths)) is not None
    assert found.range == (500, 1700), "control: not all of them state a range"


def test_a_few_outliers_and_constant_images_do_not_decide(tmp_path: Path) -> None:
    images = noise(250, 1300, 5)
    images[3].flat[0] = 65535
    images[4][:] = 65535
    found = find_value_range(written(tmp_path, images), images="training images")
    assert found is not None
    assert found.low == pytest.approx(250, abs=10)
    assert found.high == pytest.approx(1300, abs=10)
    assert found.source == "percentiles 0.1 and 99.9 of the training images"
    assert found.highest == 65535
    images[3][:20] = 60000
    found = find_value_range(written(tmp_path, images))
    assert found is not None
    assert found.range == (0, 65535), "control: many such values are no outliers"


def test_floating_point_and_signed_values(tmp_path: Path) -> None:
    images = [RNG.uniform(-3, 8, (40, 50)).astype(np.float32) for _ in range(3)]
    images[0].flat[:3] = -3, 8, np.nan
    found = find_value_range(written(tmp_path, images, ".tif"))
    assert found is not None
    assert found.range == (-3, 8)
    assert found.kinds == "float32"
    shares = [np.abs(image[np.isfinite(image)] / 8).astype(np.float32)[:1900].reshape(38, 50) for image in images]
    found = find_value_range(written(tmp_path, shares, ".tif"))
    assert found is not None
    assert found.range == (0, 1)
    found = find_value_range(written(tmp_path, noise(-40, 120, dtype=np.int32), ".tif"))
    assert found is not None
    assert found.range == (-40, 120)


def test_8_bit_images_have_none_and_are_counted_in_mixed_data(tmp_path: Path) -> None:
    (tmp_path / "8").mkdir()
    (tmp_path / "16").mkdir()
    shallow = written(tmp_path / "8", noise(0, 255, 2, np.uint8), ".jpg")
    shallow += written(tmp_path / "8", noise(0, 255, 3, np.uint8))
    assert find_value_range(shallow) is None
    deep = written(tmp_path / "16", noise(0, 4095, 2))
    found = find_value_range([*shallow, *deep, tmp_path / "missing.png"])
    assert found is not None
    assert (found.range, found.deep, found.shallow) == ((0, 4095), 2, 5)
    assert "5 other images have 8 bits and are not scaled" in found.line()
    assert found.line().startswith("values 0..4095 of 16-bit images are scaled to 8 bits: range of the images")
    assert found.line().endswith("; --value-range to change")
    (tmp_path / "fake.jpg").write_bytes(deep[0].read_bytes())
    assert has_deep_values(tmp_path / "fake.jpg"), "the content counts, not the name"


def test_a_sample_of_many_images_is_read(tmp_path: Path) -> None:
    images = [np.full((2, 2), row, np.uint16) for row in range(2 * SAMPLED_IMAGES)]
    for image in images:
        image[0, 0] += 1
    found = find_value_range(written(tmp_path, images))
    assert found is not None
    assert found.deep == 2 * SAMPLED_IMAGES
    assert found.lowest == 0
    assert found.highest == len(images), "the first and the last image are in the sample"


def test_field_case(shared_data: Path) -> None:
    folder = shared_data / "field_cases" / "P01_u16_12bit"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not present")
    paths = sorted(folder.glob("*.tif"))
    found = find_value_range(paths)
    assert found is not None
    pixels = np.stack([decode_image(path, value_range=found.range) for path in paths])
    assert pixels.max() - pixels.min() > 200
    assert max(int(decode_image(path).max()) for path in paths) <= 5, "control: the high byte is nearly black"
