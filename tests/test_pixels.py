"""Images in memory: what is accepted, and what is refused with a remedy."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detseg.errors import DataError
from detseg.images import decode_image
from detseg.pixels import to_pixels

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
CHANNELS_FIRST = torch.from_numpy(PIXELS).permute(2, 0, 1)


@pytest.mark.parametrize(
    "image",
    [PIXELS, PIXELS / 255, (PIXELS / 255).astype(np.float16), CHANNELS_FIRST, CHANNELS_FIRST / 255.0,
     CHANNELS_FIRST.double() / 255, Image.fromarray(PIXELS)],
)  # fmt: skip
def test_colours(image: Any) -> None:
    pixels, orientation = to_pixels(image, "a")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, PIXELS)
    assert orientation == 1


@pytest.mark.parametrize(
    "image", [PIXELS[..., 0], PIXELS[..., :1], CHANNELS_FIRST[:1], Image.fromarray(PIXELS[..., 0])]
)
def test_grey_is_repeated(image: Any) -> None:
    np.testing.assert_array_equal(to_pixels(image, "a")[0], PIXELS[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (PIXELS.astype(np.float32), r"a: values from \d+ to 2\d\d; floats must be in \[0, 1\]: divide"),
        (CHANNELS_FIRST.float(), "divide 0..255 by 255"),
        (CHANNELS_FIRST / 255.0 * torch.nan, "remove Normalize"),
        (PIXELS.astype(np.uint16), r"array of uint16 \[4, 5, 3\]; convert it to uint8"),
        (CHANNELS_FIRST.long(), r"tensor of torch.int64 \[3, 4, 5\]; convert it to uint8"),
        (PIXELS > 9, "array of bool"),
        (torch.from_numpy(PIXELS), r"image.permute\(2, 0, 1\)"),
        (PIXELS.transpose(2, 0, 1), r"image.transpose\(1, 2, 0\)"),
        (CHANNELS_FIRST[None], "as a list"),
        (PIXELS[None], "as a list"),
        (np.zeros((4, 5, 4), np.uint8), "alpha"),
        (torch.zeros(4, 5, 5), "alpha"),
        (torch.zeros(5, 5), "tensor of torch.float32"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        ([PIXELS], "the image is a list"),
        (Image.fromarray(PIXELS[..., 0].astype(np.float32)), "floating-point values cannot be converted to 8 bits"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), "70000..70000 do not fit 16 bits"),
    ],
)
def test_refused(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_pixels(image, "a")


def test_16_bits_are_reduced_to_their_high_byte_and_the_image_is_not_changed() -> None:
    image = Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    assert to_pixels(image, "a")[0][0, :, 0].tolist() == [0, 0, 1, 255]
    palette = Image.fromarray(PIXELS).convert("P")
    palette.info["transparency"] = 0
    to_pixels(palette, "a")
    assert palette.info["transparency"] == 0
    assert palette.mode == "P"


GREY_12 = np.random.default_rng(1).integers(0, 4096, (4, 5)).astype(np.uint16)
RGB_12 = np.random.default_rng(2).integers(0, 4096, (4, 5, 3)).astype(np.uint16)
RANGE = (0.0, 4095.0)


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (GREY_12, GREY_12),
        (GREY_12[..., None], GREY_12),
        (GREY_12.astype(">u2"), GREY_12),
        (RGB_12, RGB_12),
        (torch.from_numpy(RGB_12.astype(np.int32)).permute(2, 0, 1), RGB_12),
        (torch.from_numpy(RGB_12.astype(np.int64)).permute(2, 0, 1), RGB_12),
        (Image.fromarray(GREY_12), GREY_12),
        (Image.fromarray(GREY_12.astype(np.int32)), GREY_12),
    ],
)
def test_a_value_range_scales_all_kinds_of_more_than_8_bits(image: Any, values: Any) -> None:
    expected = np.broadcast_to((values if values.ndim == 3 else values[..., None]) >> 4, (4, 5, 3))
    pixels, orientation = to_pixels(image, "a", RANGE)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)
    assert orientation == 1


def test_a_value_range_decides_for_floats_too_and_never_for_uint8() -> None:
    floats = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
    for image in (floats, torch.from_numpy(floats)[None], Image.fromarray(floats)):
        assert to_pixels(image, "a", (0.0, 0.5))[0][0, :, 0].tolist() == [0, 128, 255, 255]
        assert to_pixels(image, "a", RANGE)[0].max() == 0
    assert to_pixels(floats, "a")[0][0, :, 0].tolist() == [0, 64, 128, 255], "control: without a range"
    for image in (PIXELS, CHANNELS_FIRST, Image.fromarray(PIXELS)):
        np.testing.assert_array_equal(to_pixels(image, "a", (3.0, 9.0))[0], PIXELS)
    for image in (floats * np.nan, Image.fromarray(floats * np.nan)):
        with pytest.raises(DataError, match="a: 4 of 4 values are NaN"):
            to_pixels(image, "a", RANGE)
    with pytest.raises(DataError, match="array of bool"):
        to_pixels(PIXELS > 9, "a", RANGE)


@pytest.mark.parametrize(
    ("suffix", "values"), [(".png", GREY_12), (".tif", GREY_12), (".png", RGB_12), (".tif", RGB_12), (".ppm", RGB_12)]
)
def test_an_opened_file_is_scaled_as_the_file_or_refused(suffix: str, values: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), values)
    if values.ndim == 2:
        np.testing.assert_array_equal(to_pixels(Image.open(path), "a", RANGE)[0], decode_image(path, value_range=RANGE))
    else:
        with pytest.raises(DataError, match=r"Pillow does not keep the values of a .*; pass the path or the bytes"):
            to_pixels(Image.open(path), "a", RANGE)
    for value_range in (None, (0.0, 65535.0)):
        np.testing.assert_array_equal(
            to_pixels(Image.open(path), "a", value_range)[0], decode_image(path, value_range=value_range)
        )


def test_an_opened_pgm_of_12_bits_is_refused_and_one_of_16_bits_is_not() -> None:
    plain = " ".join(map(str, GREY_12.flat)).encode()
    contents = {b"P5": GREY_12.astype(">u2").tobytes(), b"P2": plain}
    for top, kind in itertools.product((4095, 65535), contents):
        data = b"%s\n5 4\n%d\n" % (kind, top) + contents[kind]
        image = Image.open(io.BytesIO(data))
        if top == 4095:  # Pillow rescales it to 16 bits
            with pytest.raises(DataError, match="Pillow does not keep the values of a PPM"):
                to_pixels(image, "a", RANGE)
        else:
            np.testing.assert_array_equal(to_pixels(image, "a", RANGE)[0], decode_image(data, value_range=RANGE))
